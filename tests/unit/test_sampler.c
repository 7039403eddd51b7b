/* Tests of sampler.c and token_sampler.c. */
#include "daemon/engine/model/sampler.h"
#include "daemon/engine/model/token_sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void the_schedule_is_the_official_one_to_the_bit(void **state)
{
    (void)state;
    static const float official[] = {1.0f, 0.9459459185600281f, 0.875f, 0.7777777910232544f, 0.636363685131073f,
                                     0.4117647111415863f, 0.0f};
    for (int i = 0; i < 7; i++)
        assert_true(sampler_timestep(i, 6, 3.5) == official[i]);
}

static void one_step_goes_from_noise_to_picture(void **state)
{
    (void)state;
    assert_true(sampler_timestep(0, 1, 3.5) == 1.0f && sampler_timestep(1, 1, 3.5) == 0.0f);
}

static void guidance_is_open_below_and_closed_above(void **state)
{
    (void)state;
    static const double interval[] = {0.4, 0.9};
    assert_false(sampler_is_guided(0.4f, 4, interval));
    assert_true(sampler_is_guided(0.41f, 4, interval));
    assert_true(sampler_is_guided(0.9f, 4, interval));
    assert_false(sampler_is_guided(0.91f, 4, interval));
    assert_false(sampler_is_guided(0.5f, 1, interval));
}

static int32_t next(struct token_sampler_options options, const float *logits, const int32_t *previous, int count)
{
    float copy[4];
    int32_t token;
    struct error error;
    for (int i = 0; i < 4; i++)
        copy[i] = logits[i];
    assert_int_equal(token_sampler_next(&options, copy, 4, previous, count, &token, &error), 0);
    return token;
}

static void greedy_takes_the_first_of_the_largest(void **state)
{
    (void)state;
    assert_int_equal(next((struct token_sampler_options){0, 0, 1, 1, 0}, (float[]){1, 3, 3, 2}, NULL, 0), 1);
}

static void repetition_is_punished_once_and_in_the_right_direction(void **state)
{
    (void)state;
    const struct token_sampler_options options = {0, 0, 1, 1.5, 0};
    assert_int_equal(next(options, (float[]){2.9f, 4, 1, 1}, (int32_t[]){1, 1}, 2), 0);
    assert_int_equal(next(options, (float[]){2.5f, 4, 1, 1}, (int32_t[]){1, 1}, 2), 1);
    assert_int_equal(next(options, (float[]){-1.4f, -1, -9, -9}, (int32_t[]){1}, 1), 0);
}

static void draws_follow_the_softmax_and_the_seed(void **state)
{
    (void)state;
    enum { DRAWS = 4000 };
    const float logits[] = {logf(0.5f), logf(0.3f), logf(0.15f), logf(0.05f)};
    int counts[4] = {0}, top_p[4] = {0}, top_k[4] = {0};
    for (int i = 0; i < DRAWS; i++) {
        struct token_sampler_options options = {1, 0, 1, 1, (uint64_t)i};
        int32_t token = next(options, logits, NULL, 0);
        assert_int_equal(token, next(options, logits, NULL, 0));
        counts[token]++;
        options.top_p = 0.75;
        top_p[next(options, logits, NULL, 0)]++;
        options = (struct token_sampler_options){1, 1, 1, 1, (uint64_t)i};
        top_k[next(options, logits, NULL, 0)]++;
    }
    static const double expected[] = {0.5, 0.3, 0.15, 0.05};
    for (int i = 0; i < 4; i++)
        assert_true(fabs(counts[i] / (double)DRAWS - expected[i]) < 0.03);
    assert_int_equal(top_p[0] + top_p[1], DRAWS);
    assert_true(top_p[1] > DRAWS / 4);
    assert_int_equal(top_k[0], DRAWS);
}

/* What a draw is defined by: sort all of them, add up their softmax from the largest down, cut, and go along it. */
struct sorted_token {
    float logit;
    int32_t id;
};

static int by_logit(const void *left, const void *right)
{
    const struct sorted_token *a = left, *b = right;
    if (a->logit != b->logit)
        return a->logit > b->logit ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

static double uniform(uint64_t seed, int position)
{
    uint64_t z = seed + ((uint64_t)position + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static int sort_all(const float *logits, int count, struct sorted_token *sorted)
{
    int n = 0;
    for (int i = 0; i < count; i++)
        if (!isnan(logits[i]))
            sorted[n++] = (struct sorted_token){logits[i], i};
    qsort(sorted, (size_t)n, sizeof *sorted, by_logit);
    return n;
}

static int32_t draw_from_all(const struct token_sampler_options *o, const struct sorted_token *sorted, int count,
                             int position)
{
    if (o->top_k > 0 && o->top_k < count)
        count = o->top_k;
    double total = 0, kept = 0, sum = 0;
    for (int i = 0; i < count; i++)
        total += exp((sorted[i].logit - sorted[0].logit) / o->temperature);
    int n = 0;
    while (n < count && (n == 0 || kept < o->top_p * total))
        kept += exp((sorted[n++].logit - sorted[0].logit) / o->temperature);
    const double target = uniform(o->seed, position) * kept;
    for (int i = 0; i < n; i++)
        if (target < (sum += exp((sorted[i].logit - sorted[0].logit) / o->temperature)))
            return sorted[i].id;
    return sorted[n - 1].id;
}

/* Roughly normal, with deviation `spread`; every hundredth is one that is there many times,
 * now and then none at all. */
static void random_logits(unsigned seed, float spread, float *logits, int count)
{
    static const float special[] = {0.0f, -0.0f, 1.5f, -INFINITY, NAN};
    for (int i = 0; i < count; i++) {
        float sum = -6;
        for (int k = 0; k < 12; k++)
            sum += (float)rand_r(&seed) / (float)RAND_MAX;
        logits[i] = rand_r(&seed) % 100 ? sum * spread : special[rand_r(&seed) % 5];
    }
}

static void compare_draws(const float *logits, int count, struct sorted_token *sorted)
{
    static const double temperatures[] = {0.02, 0.3, 0.7, 1, 2.5, 100}, top_ps[] = {0, 0.3, 0.9, 0.999999, 1};
    const int top_ks[] = {0, 1, 2, 40, 3000, count, count + 1};
    const int n = sort_all(logits, count, sorted);
    float *copy = malloc((size_t)count * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, logits, (size_t)count * sizeof *copy);
    unsigned draws = 0;
    for (size_t t = 0; t < sizeof temperatures / sizeof *temperatures; t++)
        for (size_t p = 0; p < sizeof top_ps / sizeof *top_ps; p++)
            for (size_t k = 0; k < sizeof top_ks / sizeof *top_ks; k++) {
                const struct token_sampler_options options = {temperatures[t], top_ks[k], top_ps[p], 1, 77u + draws};
                int32_t token;
                assert_int_equal(token_sampler_next(&options, copy, count, NULL, (int)(draws % 7), &token, NULL), 0);
                assert_int_equal(token, draw_from_all(&options, sorted, n, (int)(draws++ % 7)));
            }
    free(copy);
}

static void a_draw_is_that_of_a_full_sort(void **state)
{
    (void)state;
    enum { VOCABULARY = 151665, SMALL = 500, SMALL_ONES = 200 };
    static const float spreads[] = {0.01f, 2.5f, 12};
    float *logits = malloc(VOCABULARY * sizeof *logits);
    struct sorted_token *sorted = malloc(VOCABULARY * sizeof *sorted);
    assert_true(logits && sorted);
    for (unsigned i = 0; i < 3; i++) {
        random_logits(i, spreads[i], logits, VOCABULARY);
        compare_draws(logits, VOCABULARY, sorted);
    }
    for (unsigned i = 0; i < SMALL_ONES; i++) {
        random_logits(100 + i, spreads[i % 3], logits, SMALL);
        logits[i] = i % 10 ? logits[i] : INFINITY;
        compare_draws(logits, SMALL, sorted);
    }
    free(logits);
    free(sorted);
}

static void logits_that_are_no_numbers_are_an_error(void **state)
{
    (void)state;
    float logits[] = {NAN, NAN};
    int32_t token;
    struct error error;
    assert_int_equal(
        token_sampler_next(&(struct token_sampler_options){0, 0, 1, 1, 0}, logits, 2, NULL, 0, &token, &error),
        ERROR_INTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_schedule_is_the_official_one_to_the_bit),
        cmocka_unit_test(one_step_goes_from_noise_to_picture),
        cmocka_unit_test(guidance_is_open_below_and_closed_above),
        cmocka_unit_test(greedy_takes_the_first_of_the_largest),
        cmocka_unit_test(repetition_is_punished_once_and_in_the_right_direction),
        cmocka_unit_test(draws_follow_the_softmax_and_the_seed),
        cmocka_unit_test(a_draw_is_that_of_a_full_sort),
        cmocka_unit_test(logits_that_are_no_numbers_are_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
