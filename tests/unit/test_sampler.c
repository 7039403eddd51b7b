/* Tests of sampler.c and token_sampler.c. */
#include "daemon/model/sampler.h"
#include "daemon/model/token_sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void the_schedule_is_the_official_one_to_the_bit(void **state)
{
    (void)state;
    static const float official[] = {1.0f, 0.9459459185600281f, 0.875f, 0.7777777910232544f, 0.636363685131073f,
                                     0.4117647111415863f, 0.0f};
    float t[7];
    sampler_timesteps(6, 3.5, t);
    for (int i = 0; i < 7; i++)
        assert_true(t[i] == official[i]);
}

static void one_step_goes_from_noise_to_picture(void **state)
{
    (void)state;
    float t[2];
    sampler_timesteps(1, 3.5, t);
    assert_true(t[0] == 1.0f && t[1] == 0.0f);
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

static void logits_that_are_no_numbers_are_an_error(void **state)
{
    (void)state;
    float logits[] = {NAN, NAN};
    int32_t token;
    struct error error;
    assert_int_equal(token_sampler_next(&(struct token_sampler_options){0, 0, 1, 1, 0}, logits, 2, NULL, 0, &token, &error),
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
        cmocka_unit_test(logits_that_are_no_numbers_are_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
