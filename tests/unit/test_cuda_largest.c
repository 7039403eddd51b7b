/* Where the largest value is, on the CUDA backend and on the CPU: the token of an answer that nothing draws. */
#include "cuda_fixture.h"

#include <math.h>

static void expect(struct pair *p, const float *values, size_t skip, int choices, int n, int32_t wanted)
{
    struct kernels *k[2] = {p->cuda, p->cpu};
    for (int i = 0; i < 2; i++) {
        struct error error = {0};
        act *x = act_with(k[i], values, skip + (size_t)n);
        int32_t found = k[i]->largest(k[i], act_at(k[i], x, skip), choices, n);
        if (k[i]->sync(k[i], &error))
            fail_msg("%s", error.text);
        assert_int_equal(found, wanted);
        k[i]->memory_free(k[i], x);
    }
}

static void the_largest_value_is_found_wherever_it_is(void **state)
{
    static const int lengths[] = {1, 2, 31, 33, 1024, 1025, 8192, 8195, 20000};
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
        for (size_t skip = 0; skip < 2; skip++) {
            const int n = lengths[l], places[] = {0, n / 2, n - 1, (int)(random_u32() % (uint32_t)n)};
            for (size_t i = 0; i < 4; i++) {
                float *values = random_bf16(skip + (size_t)n, 3.0f);
                values[skip + (size_t)places[i]] = 17.0f;
                expect(*state, values, skip, n, n, places[i]);
                free(values);
            }
        }
}

static void of_equal_values_the_first_counts(void **state)
{
    enum { N = 9000 };
    float *values = checked_alloc(N * sizeof *values);
    for (int i = 0; i < N; i++)
        values[i] = -3.0f;
    expect(*state, values, 0, N, N, 0);
    values[4100] = values[77] = values[8999] = -1.0f;
    expect(*state, values, 0, N, N, 77);
    for (int i = 0; i < N; i++)
        values[i] = i == 5000 ? 0.0f : -0.0f; /* equal, too */
    expect(*state, values, 0, N, N, 0);
    free(values);
}

static void values_that_may_not_be_chosen_are_not(void **state)
{
    enum { N = 3000 };
    float *values = random_bf16(N, 1.0f);
    values[2500] = 9.0f;
    values[2000] = 8.0f;
    expect(*state, values, 0, N, N, 2500);
    expect(*state, values, 0, 2500, N, 2000);
    free(values);
}

static void a_value_that_is_not_finite_is_told_wherever_it_is(void **state)
{
    enum { N = 3000 };
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    static const int places[] = {0, 1234, 2999};
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; j < 3; j++) {
            float *values = random_bf16(N, 1.0f);
            values[places[j]] = bad[i];
            expect(*state, values, 0, 2000, N, -1);
            free(values);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_value_is_found_wherever_it_is),
        cmocka_unit_test(of_equal_values_the_first_counts),
        cmocka_unit_test(values_that_may_not_be_chosen_are_not),
        cmocka_unit_test(a_value_that_is_not_finite_is_told_wherever_it_is),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
