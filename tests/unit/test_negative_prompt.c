/* Tests of the negative prompt through lance.h, on the tiny checkpoint of tests/golden: what the unconditional
 * branch of the guidance becomes, by the official script's arithmetic (LANCE.md section 4), worked out here
 * from jobs without guidance. */
#include "daemon/engine/lance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/engine_fixture.h"

enum { CHANNELS = 48, WIDTH = 64, HEIGHT = 48, MOST_VALUES = CHANNELS * 2 * (WIDTH / 16) * (HEIGHT / 16) };

static uint8_t source_pixels[6 * 60 * 80 * 3];
static const struct lance_media picture = {source_pixels, 1, 60, 80, 0}, clip = {source_pixels, 6, 60, 80, 12};
static float noise[MOST_VALUES]; /* [cells, channels] */

/* x after the first of two steps, and how many values it has; channels first. */
struct state {
    float x[MOST_VALUES];
    size_t count;
};

static int open_model(void **state)
{
    (void)state;
    fill_source(source_pixels, sizeof source_pixels);
    for (size_t i = 0; i < MOST_VALUES; i++)
        noise[i] = sinf((float)i * 1.7f) * 1.3f;
    return open_engine();
}

static struct lance_request one_step(enum lance_task task)
{
    struct lance_request r;
    lance_request_init(&r, task);
    r.prompt = "a red square";
    r.width = WIDTH;
    r.height = HEIGHT;
    r.num_frames = task == LANCE_T2V || task == LANCE_I2V ? 5 : 1;
    r.source = task == LANCE_T2I || task == LANCE_T2V ? NULL : task == LANCE_VIDEO_EDIT ? &clip : &picture;
    r.num_inference_steps = 2;
    r.end_step = 1;
    r.leftover_noise = true;
    r.decode = false;
    return r;
}

static struct state run(const struct lance_request *r)
{
    struct state s = {.count = 0};
    struct lance_job *job = start(r);
    const struct lance_result result = finish(job);
    s.count = (size_t)(CHANNELS * result.latent_frames * result.latent_height * result.latent_width);
    assert_true(s.count <= MOST_VALUES);
    memcpy(s.x, result.latent_state, s.count * sizeof *s.x);
    lance_job_close(job);
    return s;
}

/* The first step of both prompts without guidance, and of one guided away from the other. */
static void run_branches(struct lance_request r, const char *prompt, const char *negative, struct state *cond,
                         struct state *uncond, struct state *guided)
{
    const double scale = r.guidance_scale;
    r.guidance_scale = 1;
    r.prompt = prompt;
    *cond = run(&r);
    r.prompt = negative;
    *uncond = run(&r);
    r.guidance_scale = scale;
    r.prompt = prompt;
    r.negative_prompt = negative;
    *guided = run(&r);
    assert_int_equal(cond->count, guided->count);
}

static double relative_difference(const float *a, const double *b, size_t n)
{
    double sum = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    return sqrt(sum / norm);
}

/* x <- x - dt (u + scale (c - u)) without renormalisation, so of the steps themselves: u' + scale (c' - u'). */
static void expect_combination(enum lance_task task, const char *prompt, const char *negative)
{
    static struct state cond, uncond, guided;
    static double want[MOST_VALUES];
    struct lance_request r = one_step(task);
    r.guidance_renorm = RENORM_NONE;
    run_branches(r, prompt, negative, &cond, &uncond, &guided);
    assert_memory_not_equal(cond.x, uncond.x, cond.count * sizeof(float));
    for (size_t i = 0; i < cond.count; i++)
        want[i] = uncond.x[i] + r.guidance_scale * ((double)cond.x[i] - uncond.x[i]);
    const double difference = relative_difference(guided.x, want, guided.count);
    if (!(difference < 1e-5))
        fail_msg("%s of \"%s\" away from \"%s\": off by %g", lance_task_name(task), prompt, negative, difference);
}

static void the_unconditional_branch_is_what_the_negative_prompt_makes_alone(void **state)
{
    (void)state;
    for (int task = LANCE_T2I; task <= LANCE_VIDEO_EDIT; task++)
        expect_combination(task, "a red square", "blurred, a watermark");
}

/* Captions that the official search finds in the template, or that merge with it, cut the two prompts differently. */
static void branches_of_different_shapes_go_together(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"user", "blue"}, {"blue", "user"}, {"\nblue", "system"}, {"Describe", "\n\nx"}, {" ", "a\xcc\x81"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        expect_combination(LANCE_T2I, pairs[i][0], pairs[i][1]);
        expect_combination(LANCE_IMAGE_EDIT, pairs[i][0], pairs[i][1]);
    }
    expect_combination(LANCE_I2V, "", "blue");
}

static void the_velocity_is_renormalised_as_the_official_one(void **state)
{
    (void)state;
    static struct state cond, uncond, guided;
    static double want[MOST_VALUES];
    struct lance_request r = one_step(LANCE_T2I);
    const size_t cells = WIDTH / 16 * (HEIGHT / 16), n = cells * CHANNELS;
    r.noise_source = LANCE_NOISE_CLIENT;
    r.noise = noise;
    r.noise_values = n;
    run_branches(r, "a red square", "blurred", &cond, &uncond, &guided);
    const double t = 0.5 * r.timestep_shift / (1 + (r.timestep_shift - 1) * 0.5), dt = 1 - t;
    double cond_norm = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        const double x = noise[i % cells * CHANNELS + i / cells];
        const double c = (x - cond.x[i]) / dt, u = (x - uncond.x[i]) / dt;
        want[i] = u + r.guidance_scale * (c - u);
        cond_norm += c * c;
        norm += want[i] * want[i];
    }
    const double factor = fmin(sqrt(cond_norm) / (sqrt(norm) + 1e-8), 1);
    assert_true(factor < 0.999); /* otherwise this shows nothing */
    for (size_t i = 0; i < n; i++)
        want[i] = noise[i % cells * CHANNELS + i / cells] - dt * factor * want[i];
    assert_true(relative_difference(guided.x, want, n) < 1e-5);
}

static void nothing_to_lead_away_from_is_the_official_way(void **state)
{
    (void)state;
    static struct state official, empty, other;
    struct lance_request r = one_step(LANCE_IMAGE_EDIT);
    r.negative_prompt = NULL;
    official = run(&r);
    r.negative_prompt = "";
    empty = run(&r);
    r.negative_prompt = "blue";
    other = run(&r);
    assert_memory_equal(official.x, empty.x, official.count * sizeof(float));
    assert_memory_not_equal(official.x, other.x, official.count * sizeof(float));
}

static void a_prompt_against_itself_is_no_guidance(void **state)
{
    (void)state;
    static struct state cond, uncond, guided;
    struct lance_request r = one_step(LANCE_T2I);
    r.guidance_renorm = RENORM_NONE;
    run_branches(r, "a red square", "a red square", &cond, &uncond, &guided);
    assert_memory_equal(guided.x, cond.x, cond.count * sizeof(float));
}

static void positions_of_the_official_branch_mean_nothing_to_it(void **state)
{
    (void)state;
    static struct state official, consistent;
    struct lance_request r = one_step(LANCE_T2I);
    r.negative_prompt = "blue";
    official = run(&r);
    r.uncond_positions = LANCE_UNCOND_CONSISTENT;
    consistent = run(&r);
    assert_memory_equal(official.x, consistent.x, official.count * sizeof(float));
}

static void the_estimate_is_the_peak_within_five_percent(void **state)
{
    (void)state;
    for (int task = LANCE_T2I; task <= LANCE_VIDEO_EDIT; task++) {
        struct lance_request r = one_step(task);
        struct lance_memory estimate;
        struct error error;
        r.negative_prompt = "a much longer text than the other one is, so that the branches have different lengths";
        assert_int_equal(lance_estimate(model, &r, &estimate, &error), 0);
        struct lance_job *job = start(&r);
        const struct lance_result result = finish(job);
        if (fabs((double)result.peak_bytes / (double)estimate.device_bytes - 1) > 0.05)
            fail_msg("%s: estimate %llu, peak %llu", lance_task_name(task), (unsigned long long)estimate.device_bytes,
                     (unsigned long long)result.peak_bytes);
        lance_job_close(job);
    }
}

static void one_that_is_too_long_or_no_text_is_refused_by_its_name(void **state)
{
    (void)state;
    static char bytes[65538], tokens[2 * 8200 + 1];
    memset(bytes, 'a', sizeof bytes - 1);
    for (size_t i = 0; i + 1 < sizeof tokens; i++)
        tokens[i] = i % 2 ? ' ' : 'a';
    const struct { const char *text, *words; int code; } cases[] = {
        {bytes, "negative_prompt has 65537 bytes; at most 65536 are accepted", ERROR_TOO_LARGE},
        {tokens, "negative_prompt is ", ERROR_TOO_LARGE},
        {"\xff", "UTF-8", ERROR_BAD_REQUEST}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lance_request r = one_step(LANCE_T2I);
        struct error error;
        r.negative_prompt = cases[i].text;
        assert_int_equal(lance_request_check(model, &r, &error), cases[i].code);
        if (!strstr(error.text, cases[i].words))
            fail_msg("\"%s\" does not say \"%s\"", error.text, cases[i].words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_unconditional_branch_is_what_the_negative_prompt_makes_alone),
        cmocka_unit_test(branches_of_different_shapes_go_together),
        cmocka_unit_test(the_velocity_is_renormalised_as_the_official_one),
        cmocka_unit_test(nothing_to_lead_away_from_is_the_official_way),
        cmocka_unit_test(a_prompt_against_itself_is_no_guidance),
        cmocka_unit_test(positions_of_the_official_branch_mean_nothing_to_it),
        cmocka_unit_test(the_estimate_is_the_peak_within_five_percent),
        cmocka_unit_test(one_that_is_too_long_or_no_text_is_refused_by_its_name),
    };
    return cmocka_run_group_tests(tests, open_model, close_engine);
}
