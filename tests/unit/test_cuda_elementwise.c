/* The CUDA backend's memory, transfers and elementwise operators beside the CPU's. */
#include "cuda_fixture.h"

static const size_t lengths[] = {1, 7, 8, 255, 2048, 2049, 4099};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

/* Wherever a tensor begins: elements skipped in front of x, other and y. */
static const size_t starts[][3] = {{0, 0, 0}, {8, 16, 0}, {1, 0, 0}, {3, 3, 3}, {0, 0, 5}};
enum { STARTS = sizeof starts / sizeof *starts };

enum operation { SILU, GELU, SWIGLU, ADD, OPERATIONS };

static void apply(struct kernels *k, enum operation operation, const act *x, const act *other, size_t n, act *y)
{
    switch (operation) {
    case SILU:
        k->silu(k, x, n, y);
        break;
    case GELU:
        k->gelu(k, x, n, y);
        break;
    case SWIGLU:
        k->swiglu(k, x, other, n, y);
        break;
    default:
        k->add(k, x, n, y);
    }
}

/* Each value is rounded once, so half a unit of its last place is all it may be off. */
static void elementwise_operators_agree_with_the_cpu_to_one_rounding_wherever_tensors_begin(void **state)
{
    struct pair *p = *state;
    for (int operation = 0; operation < OPERATIONS; operation++)
        for (size_t l = 0; l < LENGTHS; l++)
            for (size_t s = 0; s < STARTS; s++) {
                const size_t n = lengths[l], all = n + 16;
                float *x = random_bf16(all, 6.0f), *other = random_bf16(all, 2.0f), *y = random_bf16(all, 3.0f);
                struct kernels *k[2] = {p->cuda, p->cpu};
                act *result[2];
                for (int i = 0; i < 2; i++) {
                    act *a = act_with(k[i], x, all), *b = act_with(k[i], other, all);
                    result[i] = act_with(k[i], y, all);
                    apply(k[i], operation, act_at(k[i], a, starts[s][0]), act_at(k[i], b, starts[s][1]), n,
                          act_at(k[i], result[i], starts[s][2]));
                    k[i]->memory_free(k[i], a);
                    k[i]->memory_free(k[i], b);
                }
                assert_same_act(p, result[0], result[1], all, BF16_ROUNDING, 1.01 * BF16_ROUNDING);
                free(x), free(other), free(y);
            }
}

static void elementwise_operators_may_work_in_place(void **state)
{
    struct pair *p = *state;
    const size_t n = 1003;
    float *x = random_bf16(n, 4.0f), *other = random_bf16(n, 4.0f);
    struct kernels *k[2] = {p->cuda, p->cpu};
    act *result[2];
    for (int i = 0; i < 2; i++) {
        act *b = act_with(k[i], other, n);
        result[i] = act_with(k[i], x, n);
        k[i]->silu(k[i], result[i], n, result[i]);
        k[i]->swiglu(k[i], b, result[i], n, result[i]);
        k[i]->gelu(k[i], result[i], n, result[i]);
        k[i]->memory_free(k[i], b);
    }
    /* three roundings on the way on the card, none on the CPU, and products that hand them on */
    assert_same_act(p, result[0], result[1], n, 2 * BF16_ROUNDING, 6 * BF16_ROUNDING);
    free(x), free(other);
}

static void gelu_keeps_its_small_values_far_below_zero(void **state)
{
    struct pair *p = *state;
    float x[64];
    for (int i = 0; i < 64; i++)
        x[i] = bf16_to_float(float_to_bf16(-4.0f - 0.1f * (float)i));
    act *on_cuda = act_with(p->cuda, x, 64), *on_cpu = act_with(p->cpu, x, 64);
    p->cuda->gelu(p->cuda, on_cuda, 64, on_cuda);
    p->cpu->gelu(p->cpu, on_cpu, 64, on_cpu);
    float *got = values_of_act(p->cuda, on_cuda, 64), *want = values_of_act(p->cpu, on_cpu, 64);
    for (int i = 0; i < 64; i++)
        assert_true(fabs((double)got[i] - (double)want[i]) <= 1.01 * BF16_ROUNDING * fabs((double)want[i]));
    free(got), free(want);
    p->cuda->memory_free(p->cuda, on_cuda);
    p->cpu->memory_free(p->cpu, on_cpu);
}

static void a_row_is_added_to_every_row(void **state)
{
    struct pair *p = *state;
    static const int shapes[][2] = {{1, 1}, {3, 7}, {17, 64}, {5, 1000}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int rows = shapes[s][0], width = shapes[s][1];
        const size_t n = (size_t)rows * (size_t)width;
        float *x = random_bf16((size_t)width, 2.0f), *y = random_bf16(n, 2.0f);
        struct kernels *k[2] = {p->cuda, p->cpu};
        act *result[2];
        for (int i = 0; i < 2; i++) {
            act *row = act_with(k[i], x, (size_t)width);
            result[i] = act_with(k[i], y, n);
            k[i]->add_row(k[i], row, rows, width, result[i]);
            k[i]->memory_free(k[i], row);
        }
        assert_same_act(p, result[0], result[1], n, BF16_ROUNDING, 1.01 * BF16_ROUNDING);
        free(x), free(y);
    }
}

/* Longer than both page-locked pieces together, so that each is used again. */
static void what_is_uploaded_comes_back_rounded_to_bf16_however_long_it_is(void **state)
{
    struct pair *p = *state;
    const size_t n = 5 * 1024 * 1024 + 3;
    float *x = random_floats(n, 100.0f);
    act *memory = act_with(p->cuda, x, n);
    float *back = values_of_act(p->cuda, memory, n);
    for (size_t i = 0; i < n; i++)
        if (back[i] != bf16_to_float(float_to_bf16(x[i])))
            fail_msg("value %zu came back as %g, not %g", i, (double)back[i], (double)x[i]);
    p->cuda->memory_free(p->cuda, memory);
    param *exact = param_with(p->cuda, x, n);
    float *same = values_of_param(p->cuda, exact, n);
    assert_memory_equal(same, x, n * sizeof *x);
    p->cuda->memory_free(p->cuda, exact);
    free(x), free(back), free(same);
}

static void copies_clears_and_roundings_stay_on_the_card(void **state)
{
    struct pair *p = *state;
    struct kernels *k = p->cuda;
    const size_t n = 777;
    float *x = random_floats(n, 1.0f);
    param *exact = param_with(k, x, n);
    act *rounded = act_with(k, x, n), *copied = act_with(k, x, n);
    k->zero(k, rounded, n);
    k->zero(k, copied, n);
    k->param_to_act(k, rounded, exact, n);
    k->copy(k, act_at(k, copied, 5), rounded, n - 5);
    float *got = values_of_act(k, copied, n);
    for (size_t i = 0; i < n; i++)
        assert_true(got[i] == (i < 5 ? 0.0f : bf16_to_float(float_to_bf16(x[i - 5]))));
    free(x), free(got);
    k->memory_free(k, exact), k->memory_free(k, rounded), k->memory_free(k, copied);
}

static void memory_is_counted_and_a_block_the_card_has_not_is_refused(void **state)
{
    struct pair *p = *state;
    struct kernels *k = p->cuda;
    struct error error = {0};
    void *block = NULL, *none = block;
    const uint64_t before = k->memory_in_use(k);
    assert_int_equal(k->memory_alloc(k, &block, 12345, &error), 0);
    assert_int_equal(k->memory_in_use(k), before + 12345);
    assert_int_equal(k->memory_alloc(k, &none, (size_t)1 << 45, &error), ERROR_NO_MEMORY);
    assert_null(none);
    assert_non_null(strstr(error.text, "MB are free"));
    k->memory_free(k, block);
    assert_int_equal(k->memory_in_use(k), before);
    assert_true(k->memory_peak(k) >= before + 12345);
    assert_int_equal(k->memory_alloc(k, &block, 0, &error), 0);
    assert_null(block);
    k->memory_free(k, NULL);
    assert_int_equal(k->sync(k, &error), 0);
}

static void a_cancelled_instance_says_so_and_works_again_afterwards(void **state)
{
    struct pair *p = *state;
    struct kernels *k = p->cuda;
    struct error error = {0};
    float x[100] = {1.0f}, back[100];
    act *memory = act_with(k, x, 100);
    atomic_bool stop = true;
    k->watch(k, &stop);
    k->silu(k, memory, 100, memory);
    k->download(k, back, memory, 100);
    for (int i = 0; i < 100; i++)
        assert_true(back[i] == 0.0f); /* never what happened to be in the buffer */
    assert_int_equal(k->sync(k, &error), ERROR_CANCELLED);
    k->watch(k, NULL);
    float *after = values_of_act(k, memory, 100);
    assert_true(after[0] == 1.0f);
    free(after);
    k->memory_free(k, memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elementwise_operators_agree_with_the_cpu_to_one_rounding_wherever_tensors_begin),
        cmocka_unit_test(elementwise_operators_may_work_in_place),
        cmocka_unit_test(gelu_keeps_its_small_values_far_below_zero),
        cmocka_unit_test(a_row_is_added_to_every_row),
        cmocka_unit_test(what_is_uploaded_comes_back_rounded_to_bf16_however_long_it_is),
        cmocka_unit_test(copies_clears_and_roundings_stay_on_the_card),
        cmocka_unit_test(memory_is_counted_and_a_block_the_card_has_not_is_refused),
        cmocka_unit_test(a_cancelled_instance_says_so_and_works_again_afterwards),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
