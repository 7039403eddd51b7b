/* test_noise.c: the noise streams against values drawn by PyTorch 2.13.0 (CPU), by CUDA
 * cards, and against Random123's published answers for Philox. */
#include "base/noise.h"
#include "kernels/formats/numbers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t fnv1a(const void *data, size_t bytes)
{
    const unsigned char *byte = data;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static void a_few_values_equal_torchs(void **state)
{
    (void)state;
    static const struct {
        uint64_t seed;
        size_t n;
        uint32_t bits[17];
    } vectors[] = {
        {42, 1, {0x3eac62ae}},
        {7, 15, {0xbe165174, 0x3f49408e, 0x3f7262e7, 0xbf8ea2d3, 0x3fd86bd0, 0xbf651371, 0xbeb6147c, 0x3f9dbed1,
                 0x3e0d7d22, 0xbfd75248, 0x3ea2a6bb, 0x3e07fe8d, 0x3e0c9eb0, 0x3e7651b9, 0x3fb29e22}},
        {2025, 16, {0xbf9491dd, 0xbfc78f74, 0x3f473906, 0xbf7fbe90, 0xbebee8f4, 0xbe233bf1, 0x3e913340, 0xbf8fcb9f,
                    0x3f7b368d, 0xbfdfa17d, 0xbe9054db, 0x3e1323bb, 0x3fcecad3, 0x3e093dd4, 0x3e700b9b, 0x3fac855a}},
        {42, 17, {0x3ff6a529, 0xbe236d85, 0xbefeaae4, 0x3ee111d8, 0xbf4214e2, 0x3f8a0650, 0x3f4d0144, 0x3fd71e93,
                  0x3eb63345, 0x3fa5f12f, 0x3f1c4788, 0x3faad8b0, 0xbe6d2eed, 0x3d2b0c00, 0xbe80ce7a, 0x3f5c1fb0,
                  0xbe9e9482}},
    };
    for (size_t v = 0; v < sizeof vectors / sizeof *vectors; v++) {
        float values[17];
        noise_torch_cpu(vectors[v].seed, values, vectors[v].n);
        assert_memory_equal(values, vectors[v].bits, vectors[v].n * sizeof *values);
    }
}

static void many_values_hash_as_torchs(void **state)
{
    (void)state;
    static const struct {
        uint64_t seed;
        size_t n;
        uint64_t hash;
    } vectors[] = {
        {0, 100, UINT64_C(0x6b680134d3d69e1b)},
        {42, 3072, UINT64_C(0x2ce4bfc6e4c94d16)},
        {7, 3072, UINT64_C(0x3a8e9e7f2255d164)},
        {(UINT64_C(1) << 32) + 5, 3072, UINT64_C(0x89240ecb587d0829)},
        {UINT64_C(1234567890123), 100003, UINT64_C(0x8c0a40acc37f9682)},
    };
    for (size_t v = 0; v < sizeof vectors / sizeof *vectors; v++) {
        float *values = malloc(vectors[v].n * sizeof *values);
        assert_non_null(values);
        noise_torch_cpu(vectors[v].seed, values, vectors[v].n);
        assert_true(fnv1a(values, vectors[v].n * sizeof *values) == vectors[v].hash);
        free(values);
    }
}

static void philox_gives_the_published_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], answer[4];
    } vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t v = 0; v < sizeof vectors / sizeof *vectors; v++) {
        uint32_t out[4];
        noise_philox4x32_10(vectors[v].counter, vectors[v].key, out);
        assert_memory_equal(out, vectors[v].answer, sizeof out);
    }
}

static void the_cuda_stream_starts_as_a_card_prints_it(void **state)
{
    (void)state;
    /* torch.manual_seed(0); torch.randn(12, device="cuda"), four decimals as torch prints them. */
    static const double printed[12] = {-0.9247, -0.4253, -2.6438, 0.1452,  -0.1209, -0.5797,
                                       -0.6229, -0.3284, -1.0745, -0.3631, -1.6711, 2.2655};
    float values[12];
    noise_torch_cuda(0, 132, 2048, values, 12);
    for (size_t i = 0; i < 12; i++)
        assert_float_equal(values[i], printed[i], 0.00006);
}

static void the_cuda_stream_wraps_where_the_card_is_full(void **state)
{
    (void)state;
    /* On a card of 2 x 256 threads, a thread's second value lands 512 elements on, and its fifth
     * is drawn in the next turn; the first 512 are the same as on any larger card. */
    enum { COUNT = 5 * 512 + 3 };
    static float small[COUNT], large[COUNT];
    noise_torch_cuda(9, 2, 256, small, COUNT);
    noise_torch_cuda(9, 132, 2048, large, COUNT);
    assert_memory_equal(small, large, 512 * sizeof *small);
    assert_memory_not_equal(small + 512, large + 512, 512 * sizeof *small);
    float longer[COUNT];
    noise_torch_cuda(9, 2, 256, longer, 4 * 512);
    assert_memory_equal(small, longer, 4 * 512 * sizeof *small);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < COUNT; i++) {
        sum += small[i];
        squares += (double)small[i] * small[i];
    }
    assert_float_equal(sum / COUNT, 0, 0.08);
    assert_float_equal(squares / COUNT, 1, 0.12);
}

static void bf16_rounding_goes_to_nearest_even(void **state)
{
    (void)state;
    float values[] = {1.0f, 1.00390625f, 1.01171875f, -1.0039064f, 0.33333334f};
    static const float rounded[] = {1.0f, 1.0f, 1.015625f, -1.0078125f, 0.333984375f};
    bf16_round(values, 5);
    assert_memory_equal(values, rounded, sizeof values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_few_values_equal_torchs),
        cmocka_unit_test(many_values_hash_as_torchs),
        cmocka_unit_test(philox_gives_the_published_answers),
        cmocka_unit_test(the_cuda_stream_starts_as_a_card_prints_it),
        cmocka_unit_test(the_cuda_stream_wraps_where_the_card_is_full),
        cmocka_unit_test(bf16_rounding_goes_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
