/* Tests of the engine through lance.h, on the tiny checkpoint of tests/golden: what a client of the engine relies on
 * beyond equality with the official results (which check-golden shows). */
#include "daemon/engine/lance.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/noise.h"
#include "tests/unit/engine_fixture.h"
#include "tests/unit/small_requests.h"

static int open_model(void **state)
{
    (void)state;
    fill_source(source_pixels, sizeof source_pixels);
    return open_engine();
}

static size_t latent_values(const struct lance_result *r)
{
    return (size_t)48 * (size_t)r->latent_frames * (size_t)r->latent_height * (size_t)r->latent_width;
}

static void assert_refused(struct lance_request r, int code, const char *words)
{
    struct lance_job *job;
    struct error error = {0};
    struct lance_memory memory;
    const uint64_t before = kernels->memory_in_use(kernels);
    assert_int_equal(lance_job_start(&job, model, &r, &error), code);
    if (!strstr(error.text, words))
        fail_msg("\"%s\" does not say \"%s\"", error.text, words);
    assert_null(job);
    assert_int_equal(lance_estimate(model, &r, &memory, &error), code);
    assert_int_equal(kernels->memory_in_use(kernels), before);
}

/* Every way to ask refuses it with the same words. */
static void assert_refused_everywhere(struct lance_request r, const char *words)
{
    struct error error = {0};
    assert_refused(r, ERROR_BAD_REQUEST, words);
    assert_int_equal(lance_request_check(model, &r, &error), ERROR_BAD_REQUEST);
    assert_non_null(strstr(error.text, words));
}

/* ---- requests ---- */

#define REFUSED(member, value, code, words)                                                                            \
    do {                                                                                                               \
        struct lance_request r_ = small(LANCE_T2I);                                                                    \
        r_.member = value;                                                                                             \
        assert_refused(r_, code, words);                                                                               \
    } while (0)

static void bad_parameters_are_named_with_value_and_range(void **state)
{
    (void)state;
    REFUSED(num_inference_steps, 0, ERROR_BAD_REQUEST,
            "num_inference_steps is 0; accepted are integers from 1 to 1000");
    REFUSED(guidance_scale, NAN, ERROR_BAD_REQUEST, "guidance_scale is nan; accepted are numbers");
    REFUSED(guidance_interval[1], INFINITY, ERROR_BAD_REQUEST, "guidance_interval[1] is inf");
    REFUSED(guidance_interval[0], 1.5, ERROR_BAD_REQUEST, "guidance_interval[0] is 1.5");
    REFUSED(guidance_interval[1], 0.2, ERROR_BAD_REQUEST,
            "guidance_interval is [0.4, 0.2]; accepted is [low, high] with low not above high");
    REFUSED(timestep_shift, -1, ERROR_BAD_REQUEST, "timestep_shift is -1");
    REFUSED(width, 100, ERROR_BAD_REQUEST, "width is 100; accepted are multiples of 16 up to 1024");
    REFUSED(height, 1040, ERROR_BAD_REQUEST, "height is 1040");
    REFUSED(width, 0, ERROR_BAD_REQUEST, "give both or neither");
    REFUSED(batch_size, 33, ERROR_BAD_REQUEST, "batch_size is 33; accepted are integers from 1 to 32");
    REFUSED(guidance_renorm_min, 2, ERROR_BAD_REQUEST, "guidance_renorm_min is 2");
    REFUSED(prompt, "", ERROR_BAD_REQUEST, "prompt is empty");
    REFUSED(prompt, "\xff", ERROR_BAD_REQUEST, "UTF-8");
    REFUSED(noise_source, LANCE_NOISE_CLIENT, ERROR_BAD_REQUEST, "noise is missing");
    REFUSED(source, &picture, ERROR_BAD_REQUEST, "task t2i takes none");
    REFUSED(task, (enum lance_task)77, ERROR_BAD_REQUEST, "task is 77");
}

static void a_prompt_of_100000_characters_is_refused_and_the_next_one_works(void **state)
{
    (void)state;
    static char text[100001];
    memset(text, 'a', sizeof text - 1);
    REFUSED(prompt, text, ERROR_TOO_LARGE, "prompt has 100000 bytes; at most 65536 are accepted");
    struct lance_request r = small(LANCE_T2I);
    struct lance_job *job = start(&r);
    finish(job);
    lance_job_close(job);
}

static void a_source_must_be_there_and_make_sense(void **state)
{
    (void)state;
    struct lance_request r = small(LANCE_IMAGE_EDIT);
    r.source = NULL;
    assert_refused(r, ERROR_BAD_REQUEST, "source is missing; task image_edit needs a picture");
    r = small(LANCE_VIDEO_EDIT);
    struct lance_media still = clip;
    still.fps = NAN;
    r.source = &still;
    assert_refused(r, ERROR_BAD_REQUEST, "fps of the source is nan");
    r = small(LANCE_IMAGE_EDIT);
    r.width = r.height = 0;
    r.resolution = "image_1res";
    assert_refused(r, ERROR_BAD_REQUEST, "image_1res");
    r.resolution = "16000x16000";
    assert_refused(r, ERROR_BAD_REQUEST, "16000");
}

static void noise_of_the_wrong_size_is_refused(void **state)
{
    (void)state;
    static const float noise[48];
    struct lance_request r = small(LANCE_T2I);
    r.noise_source = LANCE_NOISE_CLIENT;
    r.noise = noise;
    r.noise_values = 48;
    assert_refused(r, ERROR_BAD_REQUEST, "noise has 48 values; this job needs 576");
    r = small(LANCE_I2V);
    r.source_latent_noise = noise;
    r.source_latent_noise_values = 48;
    assert_refused(r, ERROR_BAD_REQUEST, "source_latent_noise has 48 values; this job needs 576");
}

static void noise_that_is_no_number_is_refused(void **state)
{
    (void)state;
    static float noise[576];
    struct lance_request r = small(LANCE_T2I);
    r.noise_source = LANCE_NOISE_CLIENT;
    r.noise = noise;
    r.noise_values = 576;
    noise[17] = NAN;
    assert_refused_while_preparing(&r, "noise: value 17 of 576 is nan; accepted are finite numbers");
    noise[17] = -INFINITY;
    assert_refused_while_preparing(&r, "noise: value 17 of 576 is -inf");
    r = small(LANCE_IMAGE_EDIT);
    r.source_latent_noise = noise;
    r.source_latent_noise_values = 576;
    assert_refused_while_preparing(&r, "source_latent_noise: value 17 of 576 is -inf");
    noise[17] = 0;
    r.source_latent_noise_values = 575;
    assert_refused_everywhere(r, "source_latent_noise has 575 values; this job needs 576");
}

static void a_video_has_1_to_121_frames(void **state)
{
    (void)state;
    for (int task = LANCE_T2V; task <= LANCE_I2V; task++) {
        struct lance_request r = small(task);
        r.num_frames = 200;
        assert_refused_everywhere(r, "num_frames is 200; accepted are integers from 1 to 121");
        r.num_frames = 0;
        assert_refused_everywhere(r, "num_frames is 0; accepted are integers from 1 to 121");
    }
}

static void a_source_video_must_have_frames_and_a_size(void **state)
{
    (void)state;
    const enum lance_task tasks[] = {LANCE_VIDEO_EDIT, LANCE_X2T_VIDEO};
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++) {
        struct lance_request r = small(tasks[i]);
        struct lance_media bad = clip;
        r.source = &bad;
        bad.frames = 0;
        assert_refused_everywhere(r, "source frames is 0; accepted are integers from 1 to");
        bad = clip;
        bad.width = 0;
        assert_refused_everywhere(r, "source width is 0; accepted are integers from 1 to 8192");
        bad = clip;
        bad.fps = 0;
        assert_refused_everywhere(r, "fps of the source is 0; accepted are numbers from 0.01 to 1000");
        bad = clip;
        bad.pixels = NULL;
        assert_refused_everywhere(r, "source is missing");
    }
}

/* No pixel of it is read: there are none. */
static void a_source_of_16000_by_16000_is_refused_before_anything_is_made_of_it(void **state)
{
    (void)state;
    const struct lance_media huge = {source_pixels, 1, 16000, 16000, 12};
    for (int task = LANCE_I2V; task <= LANCE_X2T_VIDEO; task++) {
        struct lance_request r = small(task);
        r.source = &huge;
        assert_refused_everywhere(r, "source height is 16000; accepted are integers from 1 to 8192");
    }
}

/* As the official sampler does: 12 frames a second, of 6 seconds at most. */
static void a_source_video_of_any_length_is_sampled_down(void **state)
{
    (void)state;
    uint8_t *pixels = calloc(200, 16 * 16 * 3);
    assert_non_null(pixels);
    const struct lance_media lengthy = {pixels, 200, 16, 16, 12};
    struct lance_request r = small(LANCE_VIDEO_EDIT);
    struct lance_memory memory;
    struct error error;
    r.source = &lengthy;
    r.width = r.height = 32;
    if (lance_estimate(model, &r, &memory, &error))
        fail_msg("%s", error.text);
    struct lance_job *job = start(&r);
    assert_int_equal(finish(job).frames, 69);
    lance_job_close(job);
    free(pixels);
}

static void sources_of_odd_sizes_work(void **state)
{
    (void)state;
    static const int sizes[][2] = {{1, 1}, {1, 80}, {61, 1}, {17, 31}, {59, 79}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int task = LANCE_I2V; task <= LANCE_X2T_VIDEO; task++) {
            struct lance_request r = small(task);
            const struct lance_media odd = {source_pixels, task_takes_video(task) ? 3 : 1, sizes[i][0], sizes[i][1],
                                            12};
            r.source = &odd;
            struct lance_job *job = start(&r);
            finish(job);
            lance_job_close(job);
        }
}

/* ---- results ---- */

static void every_task_ends_with_what_it_promises(void **state)
{
    (void)state;
    static const struct {
        enum lance_task task;
        int frames, latent_frames;
    } makes[] = {
        {LANCE_T2I, 1, 1}, {LANCE_T2V, 5, 2}, {LANCE_I2V, 5, 2}, {LANCE_IMAGE_EDIT, 1, 1}, {LANCE_VIDEO_EDIT, 5, 2}};
    for (size_t i = 0; i < sizeof makes / sizeof *makes; i++) {
        struct lance_request r = small(makes[i].task);
        struct lance_job *job = start(&r);
        struct lance_result result = finish(job);
        assert_non_null(result.pixels);
        assert_null(result.text);
        assert_int_equal(result.frames, makes[i].frames);
        assert_int_equal(result.latent_frames, makes[i].latent_frames);
        assert_int_equal(result.height, 48);
        assert_int_equal(result.width, 64);
        for (size_t v = 0; v < latent_values(&result); v++)
            assert_true(isfinite(result.latents[v]));
        lance_job_close(job);
    }
}

static void odd_prompts_make_pictures_too(void **state)
{
    (void)state;
    static const char *const prompts[] = {"\n", " ", "\n\nx", "user", "Describe the image", "<|im_end|>",
        "<|vision_start|>",
                                          "e\xcc\x81", "\xf0\x9f\xa6\x8a"};
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++)
        for (int positions = LANCE_UNCOND_OFFICIAL; positions <= LANCE_UNCOND_CONSISTENT; positions++) {
            struct lance_request r = small(i % 2 ? LANCE_T2I : LANCE_IMAGE_EDIT);
            r.prompt = prompts[i];
            r.uncond_positions = positions;
            struct lance_job *job = start(&r);
            assert_non_null(finish(job).pixels);
            lance_job_close(job);
        }
}

static void a_picture_comes_alive_without_words(void **state)
{
    (void)state;
    struct lance_request r = small(LANCE_I2V);
    r.prompt = "";
    struct lance_job *guided = start(&r), *plain;
    r.guidance_scale = 1;
    plain = start(&r);
    struct lance_result a = finish(guided), b = finish(plain);
    /* Both branches see the same, so guidance changes nothing but the last bits. */
    for (size_t i = 0; i < latent_values(&a); i++)
        assert_true(fabsf(a.latents[i] - b.latents[i]) < 1e-3f);
    lance_job_close(guided);
    lance_job_close(plain);
}

static void a_model_without_its_vae_still_answers(void **state)
{
    (void)state;
    char bare[] = "/tmp/lance-bare-XXXXXX", command[200];
    struct lance_model *const shared = model;
    struct lance_model_info info;
    struct error error;
    assert_non_null(mkdtemp(bare));
    snprintf(command, sizeof command, "ln -s %s/* %s && rm %s/Wan2.2_VAE*", folder, bare, bare);
    assert_int_equal(system(command), 0);
    if (lance_model_open(&model, kernels, &(struct lance_model_options){.model_dir = bare}, &error))
        fail_msg("%s", error.text);
    lance_model_info(model, &info);
    assert_int_equal(info.tasks, 1u << LANCE_X2T_IMAGE | 1u << LANCE_X2T_VIDEO);
    assert_refused(small(LANCE_T2I), ERROR_UNSUPPORTED, "task t2i is not offered by model");
    struct lance_request r = small(LANCE_X2T_IMAGE);
    struct lance_job *job = start(&r);
    assert_non_null(finish(job).text);
    lance_job_close(job);
    lance_model_close(model);
    model = shared;
    snprintf(command, sizeof command, "rm -r %s", bare);
    assert_int_equal(system(command), 0);
}

static void the_pieces_of_an_answer_join_to_its_text(void **state)
{
    (void)state;
    for (int task = LANCE_X2T_IMAGE; task <= LANCE_X2T_VIDEO; task++) {
        struct lance_request r = small(task);
        struct lance_job *job = start(&r);
        struct lance_progress progress;
        struct lance_result result;
        struct error error;
        char said[4096] = "";
        int code;
        do {
            code = step(job, &progress);
            if (progress.text)
                strncat(said, progress.text, sizeof said - strlen(said) - 1);
        } while (code == LANCE_STEP_MORE);
        assert_int_equal(lance_job_result(job, &result, &error), 0);
        assert_true(result.tokens > 0 && result.tokens <= 6);
        assert_non_null(strstr(said, result.text));
        assert_null(result.pixels);
        lance_job_close(job);
    }
}

static void a_batch_is_its_seeds_one_by_one(void **state)
{
    (void)state;
    struct lance_request r = small(LANCE_T2I);
    r.batch_size = 3;
    struct lance_job *together = start(&r);
    struct lance_result all = finish(together);
    const size_t n = latent_values(&all), pixels = (size_t)all.height * (size_t)all.width * 3;
    for (size_t i = 0; i < 3; i++) {
        r.batch_size = 1;
        r.seed = 42 + i;
        struct lance_job *alone = start(&r);
        struct lance_result one = finish(alone);
        assert_memory_equal(one.latents, all.latents + i * n, n * sizeof *one.latents);
        assert_memory_equal(one.pixels, all.pixels + i * pixels, pixels);
        lance_job_close(alone);
    }
    lance_job_close(together);
}

static void jobs_stepped_in_turn_give_what_they_give_alone(void **state)
{
    (void)state;
    struct lance_request a = small(LANCE_T2I), b = small(LANCE_IMAGE_EDIT);
    struct lance_job *alone_a = start(&a), *alone_b = start(&b), *turn_a = start(&a), *turn_b = start(&b);
    struct lance_result want_a = finish(alone_a), want_b = finish(alone_b), got_a, got_b;
    struct lance_progress progress;
    struct error error;
    int more_a = 1, more_b = 1;
    while (more_a || more_b) {
        more_a = more_a && step(turn_a, &progress) == LANCE_STEP_MORE;
        more_b = more_b && step(turn_b, &progress) == LANCE_STEP_MORE;
    }
    assert_int_equal(lance_job_result(turn_a, &got_a, &error), 0);
    assert_int_equal(lance_job_result(turn_b, &got_b, &error), 0);
    assert_memory_equal(got_a.latents, want_a.latents, latent_values(&want_a) * sizeof(float));
    assert_memory_equal(got_b.latents, want_b.latents, latent_values(&want_b) * sizeof(float));
    struct lance_job *const jobs[] = {alone_a, alone_b, turn_a, turn_b};
    for (int i = 0; i < 4; i++)
        lance_job_close(jobs[i]);
}

static void threads_do_not_change_a_bit(void **state)
{
    (void)state;
    struct lance_request r = small(LANCE_IMAGE_EDIT);
    struct lance_job *job = start(&r);
    struct lance_result two = finish(job);
    struct kernels *single, *const both = kernels;
    struct lance_model *const shared = model;
    struct error error;
    assert_int_equal(kernels_cpu_open(&single, 1, CPU_AUTO, &error), 0);
    assert_int_equal(lance_model_open(&model, single, &(struct lance_model_options){.model_dir = folder}, &error), 0);
    kernels = single;
    struct lance_job *other = start(&r);
    struct lance_result one = finish(other);
    assert_memory_equal(one.latents, two.latents, latent_values(&two) * sizeof(float));
    lance_job_close(other);
    lance_model_close(model);
    single->close(single);
    kernels = both;
    model = shared;
    lance_job_close(job);
}

static void comfyui_noise_is_drawn_channels_first(void **state)
{
    (void)state;
    enum { CELLS = 12, VALUES = 48 * CELLS };
    struct lance_request r = small(LANCE_T2I);
    r.noise_source = LANCE_NOISE_COMFYUI;
    struct lance_job *named = start(&r);
    struct lance_result want = finish(named);
    /* The same draw, sent by the client as [cells, channels]: the torch stream of one cell
     * after another, transposed. */
    float stream[VALUES], noise[VALUES];
    noise_torch_cpu(42, stream, VALUES);
    for (size_t cell = 0; cell < CELLS; cell++)
        for (size_t c = 0; c < 48; c++)
            noise[cell * 48 + c] = stream[c * CELLS + cell];
    r.noise_source = LANCE_NOISE_CLIENT;
    r.noise = noise;
    r.noise_values = VALUES;
    struct lance_job *sent = start(&r);
    struct lance_result got = finish(sent);
    assert_memory_equal(got.latents, want.latents, VALUES * sizeof(float));
    lance_job_close(named);
    lance_job_close(sent);
}

static void the_first_frame_of_i2v_stays_what_the_picture_is(void **state)
{
    (void)state;
    struct lance_request r = small(LANCE_I2V);
    r.source_latent_mean = true;
    struct lance_job *job = start(&r), *other;
    struct lance_result a = finish(job), b;
    r.seed = 7;
    other = start(&r);
    b = finish(other);
    const size_t cells = (size_t)a.latent_height * (size_t)a.latent_width;
    for (size_t c = 0; c < 48; c++) {
        assert_memory_equal(a.latents + c * 2 * cells, b.latents + c * 2 * cells, cells * sizeof(float));
        assert_memory_not_equal(a.latents + (c * 2 + 1) * cells, b.latents + (c * 2 + 1) * cells,
                                cells * sizeof(float));
    }
    lance_job_close(job);
    lance_job_close(other);
}

/* ---- memory ---- */

static void the_estimate_is_the_peak_within_five_percent(void **state)
{
    (void)state;
    for (int task = 0; task < LANCE_ENCODE; task++) /* those two: test_latents.c */
        for (int large = 0; large < 2; large++) {
            struct lance_request r = small(task);
            struct lance_memory estimate;
            struct error error;
            r.batch_size = large ? 3 : 1;
            r.width = large ? 160 : 64;
            r.decode = large;
            assert_int_equal(lance_estimate(model, &r, &estimate, &error), 0);
            struct lance_job *job = start(&r);
            struct lance_result result = finish(job);
            assert_int_equal(result.estimated_bytes, estimate.device_bytes);
            if (fabs((double)result.peak_bytes / (double)estimate.device_bytes - 1) > 0.05)
                fail_msg("%s: estimate %llu, peak %llu", lance_task_name(task),
                         (unsigned long long)estimate.device_bytes, (unsigned long long)result.peak_bytes);
            lance_job_close(job);
        }
}

static void a_job_closed_at_any_step_leaves_no_memory_behind(void **state)
{
    (void)state;
    const uint64_t before = kernels->memory_in_use(kernels);
    for (int task = 0; task < LANCE_TASK_COUNT; task++)
        for (int stop = 0, more = 1; more; stop++) {
            struct lance_request r = small(task);
            struct lance_job *job = start(&r);
            struct lance_progress progress;
            for (int i = 0; i < stop && more; i++)
                more = step(job, &progress) == LANCE_STEP_MORE;
            lance_job_close(job);
            assert_int_equal(kernels->memory_in_use(kernels), before);
        }
}

static void a_job_over_the_memory_limit_is_refused_with_the_numbers(void **state)
{
    (void)state;
    struct lance_request r = small(LANCE_T2I);
    struct lance_model *const shared = model;
    struct lance_job *first, *second;
    struct error error;
    struct lance_memory need;
    assert_int_equal(lance_estimate(model, &r, &need, &error), 0);
    struct lance_model_options options = {.model_dir = folder, .memory_limit_bytes = need.total_bytes};
    assert_int_equal(lance_model_open(&model, kernels, &options, &error), 0);
    assert_int_equal(lance_job_start(&first, model, &r, &error), 0);
    assert_int_equal(lance_job_start(&second, model, &r, &error), ERROR_BUSY);
    lance_job_close(first);
    assert_int_equal(lance_job_start(&first, model, &r, &error), 0);
    lance_job_close(first);
    r.batch_size = 8;
    assert_int_equal(lance_job_start(&first, model, &r, &error), ERROR_TOO_LARGE);
    assert_non_null(strstr(error.text, "MB"));
    lance_model_close(model);
    model = shared;
}

static void a_job_that_cannot_fit_is_refused_when_it_is_checked(void **state)
{
    (void)state;
    struct lance_request r = small(LANCE_T2I);
    struct lance_memory need;
    struct error error;
    char words[100];
    assert_int_equal(lance_estimate(model, &r, &need, &error), 0);
    assert_true(need.total_bytes <= need.device_bytes + need.host_bytes);
    lance_model_limit_memory(model, 100000);
    int code = lance_request_check(model, &r, &error);
    lance_model_limit_memory(model, 0);
    assert_int_equal(code, ERROR_TOO_LARGE);
    snprintf(words, sizeof words, "the job needs %.1f MB of memory beside the weights; the limit is 0.1 MB",
             (double)need.total_bytes / 1e6);
    if (!strstr(error.text, words))
        fail_msg("\"%s\" does not say \"%s\"", error.text, words);
    assert_int_equal(lance_request_check(model, &r, &error), 0);
}

/* A card's memory is one thing, the host's another. */
static void beside_a_card_the_hosts_memory_has_a_limit_of_its_own(void **state)
{
    (void)state;
    struct lance_request r = small(LANCE_T2I);
    struct lance_memory need;
    struct error error;
    lance_model_limit_host_memory(model, 1000);
    assert_int_equal(lance_request_check(model, &r, &error), 0); /* no card: one limit for both */
    assert_int_equal(lance_estimate(model, &r, &need, &error), 0);
    kernels->host_memory = false;
    lance_model_limit_memory(model, need.device_bytes);
    int refused = lance_request_check(model, &r, &error);
    lance_model_limit_host_memory(model, need.host_bytes);
    struct error after, busy = {0};
    int fits = lance_request_check(model, &r, &after);
    struct lance_job *first, *second, *third;
    lance_model_limit_memory(model, 2 * need.device_bytes);
    int started = lance_job_start(&first, model, &r, &after);
    int second_started = lance_job_start(&second, model, &r, &busy);
    lance_job_close(first);
    int third_started = lance_job_start(&third, model, &r, &after); /* what the first one had is there again */
    lance_job_close(third);
    kernels->host_memory = true;
    lance_model_limit_memory(model, 0);
    lance_model_limit_host_memory(model, 0);
    assert_int_equal(refused, ERROR_TOO_LARGE);
    assert_non_null(strstr(error.text, "of the host's memory"));
    assert_int_equal(fits, 0);
    assert_int_equal(started, 0);
    assert_int_equal(second_started, ERROR_BUSY);
    assert_non_null(strstr(busy.text, "of the host's memory; other jobs hold"));
    assert_int_equal(third_started, 0);
}

static void frames_and_previews_are_part_of_the_estimate(void **state)
{
    (void)state;
    struct lance_request r = small(LANCE_T2V);
    struct lance_memory one, more;
    struct error error;
    r.num_frames = 9;
    assert_int_equal(lance_estimate(model, &r, &one, &error), 0);
    r.num_frames = 121;
    assert_int_equal(lance_estimate(model, &r, &more, &error), 0);
    /* The frames themselves, and the copy that goes to the client. */
    assert_true(more.host_bytes - one.host_bytes > 2 * (uint64_t)(121 - 9) * 64 * 48 * 3);
    r = small(LANCE_T2I);
    r.decode = false;
    assert_int_equal(lance_estimate(model, &r, &one, &error), 0);
    r.preview = true;
    assert_int_equal(lance_estimate(model, &r, &more, &error), 0);
    assert_true(more.device_bytes > one.device_bytes);
}

/* ---- cancelling ---- */

static void *abort_soon(void *job)
{
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    lance_job_abort(job);
    return NULL;
}

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The largest video there is. One step of it takes minutes here; the abort must not. What the step had allocated by
 * then is what was predicted. */
static void the_largest_video_is_estimated_and_its_steps_can_be_aborted(void **state)
{
    (void)state;
    struct lance_model *const shared = model;
    struct lance_progress progress;
    struct lance_memory need;
    struct error error;
    pthread_t thread;
    if (lance_model_open(&model, kernels, &(struct lance_model_options){.model_dir = "demo/lance-demo"}, &error))
        fail_msg("%s", error.text);
    const uint64_t before = kernels->memory_in_use(kernels);
    struct lance_request r = small(LANCE_T2V);
    r.width = 848;
    r.height = 480;
    r.num_frames = 121;
    r.decode = false;
    assert_int_equal(lance_estimate(model, &r, &need, &error), 0);
    struct lance_job *job = start(&r);
    do
        step(job, &progress);
    while (progress.stage != STAGE_PREFIX || progress.step < progress.steps);
    assert_int_equal(pthread_create(&thread, NULL, abort_soon, job), 0);
    const double began = seconds_now();
    assert_int_equal(lance_job_step(job, &progress, &error), ERROR_CANCELLED);
    const double took = seconds_now() - began;
    assert_int_equal(pthread_join(thread, NULL), 0);
    if (took > 20)
        fail_msg("the step went on for %.1f s", took);
    assert_true(fabs((double)(kernels->memory_in_use(kernels) - before) / (double)need.device_bytes - 1) < 0.05);
    assert_int_equal(lance_job_step(job, &progress, &error), ERROR_INTERNAL); /* it can only be closed */
    lance_job_close(job);
    assert_int_equal(kernels->memory_in_use(kernels), before);
    lance_model_close(model);
    model = shared;
}

static void a_long_source_is_prepared_frame_by_frame_and_can_be_aborted(void **state)
{
    (void)state;
    enum { FRAMES = 12, WIDE = 1920, HIGH = 1080 };
    uint8_t *pixels = malloc((size_t)FRAMES * WIDE * HIGH * 3);
    assert_non_null(pixels);
    fill_source(pixels, (size_t)FRAMES * WIDE * HIGH * 3);
    const struct lance_media film = {pixels, FRAMES, HIGH, WIDE, 12};
    struct lance_request r = small(LANCE_X2T_VIDEO);
    struct lance_progress progress;
    struct error error;
    r.source = &film;
    struct lance_job *job = start(&r);
    for (int i = 1; i <= 9; i++) { /* 12 frames a second for a second: 4m + 1 of them are taken */
        assert_int_equal(lance_job_step(job, &progress, &error), LANCE_STEP_MORE);
        assert_int_equal(progress.stage, STAGE_PREPARE);
        assert_int_equal(progress.step, i);
        assert_int_equal(progress.steps, 9);
        assert_true(progress.total_step == i && progress.total_steps > 9);
    }
    free(pixels); /* nothing is borrowed any more */
    struct lance_result result = finish(job);
    assert_int_equal(result.stages[0].stage, STAGE_PREPARE);
    assert_int_equal(result.stages[0].steps, 9);
    assert_true(result.stages[0].seconds > 0);
    lance_job_close(job);

    job = start(&r);
    lance_job_abort(job);
    assert_int_equal(lance_job_step(job, &progress, &error), ERROR_CANCELLED);
    lance_job_close(job);
}

static void a_large_picture_shows_progress_while_the_vae_works_on_it(void **state)
{
    (void)state;
    struct lance_request r = small(LANCE_T2I);
    r.width = 272;
    r.height = 256;
    r.num_inference_steps = 1;
    struct lance_progress progress;
    struct error error;
    struct lance_job *job = start(&r);
    int decoding = 0, status;
    do {
        status = lance_job_step(job, &progress, &error);
        assert_true(status >= 0);
        if (progress.stage == STAGE_DECODE)
            assert_int_equal(progress.step, ++decoding);
        if (progress.stage == STAGE_DENOISE)
            assert_int_equal(progress.later_steps, 1); /* one latent frame, however many blocks */
    } while (status == LANCE_STEP_MORE);
    assert_int_equal(decoding, progress.steps);
    assert_true(decoding > 10);
    assert_int_equal(progress.total_step, progress.total_steps);
    lance_job_close(job);
}

static void an_aborted_job_stops_at_every_stage(void **state)
{
    (void)state;
    for (int task = 0; task < LANCE_TASK_COUNT; task++)
        for (int stop = 0, more = 1; more; stop++) {
            struct lance_request r = small(task);
            struct lance_progress progress;
            struct error error;
            struct lance_job *job = start(&r);
            for (int i = 0; i < stop && more; i++)
                more = step(job, &progress) == LANCE_STEP_MORE;
            lance_job_abort(job);
            assert_int_equal(lance_job_step(job, &progress, &error), more ? ERROR_CANCELLED : LANCE_STEP_DONE);
            lance_job_close(job);
        }
    /* And the backend works on. */
    struct lance_request r = small(LANCE_T2I);
    struct lance_job *job = start(&r);
    finish(job);
    lance_job_close(job);
}

/* ---- previews ---- */

/* On a model that has learnt something: the tiny checkpoint's VAE is random, and no line fits it. */
static void a_preview_shows_what_the_picture_will_be(void **state)
{
    (void)state;
    struct lance_model *const shared = model;
    struct error error;
    if (lance_model_open(&model, kernels, &(struct lance_model_options){.model_dir = "demo/lance-demo"}, &error))
        fail_msg("%s", error.text);
    struct lance_request r = small(LANCE_T2I);
    r.prompt = "a large red circle on the left on a blue background";
    r.width = r.height = 128;
    r.num_inference_steps = 20;
    r.preview = true;
    struct lance_job *job = start(&r);
    struct lance_progress progress;
    const uint8_t *rgb;
    uint8_t seen[64 * 3];
    int frames, height, width;
    assert_int_equal(lance_job_preview(job, &rgb, &frames, &height, &width, &error), ERROR_NOT_FOUND);
    do
        step(job, &progress);
    while (progress.stage != STAGE_DENOISE || progress.step < 14);
    assert_int_equal(lance_job_preview(job, &rgb, &frames, &height, &width, &error), 0);
    assert_int_equal(frames, 1);
    assert_int_equal(height, 8);
    assert_int_equal(width, 8);
    memcpy(seen, rgb, sizeof seen);
    struct lance_result result = finish(job);
    assert_int_equal(lance_job_preview(job, &rgb, &frames, &height, &width, &error), 0);
    /* One pixel per cell against the mean of the cell's 16 x 16 pixels. */
    double preview_error = 0, grey_error = 0;
    for (int cell = 0; cell < 64; cell++)
        for (int colour = 0; colour < 3; colour++) {
            double mean = 0;
            for (int y = 0; y < 16; y++)
                for (int x = 0; x < 16; x++)
                    mean += result.pixels[((cell / 8 * 16 + y) * 128 + cell % 8 * 16 + x) * 3 + colour] / 256.0;
            preview_error += fabs(mean - seen[cell * 3 + colour]);
            grey_error += fabs(mean - 127.5);
        }
    assert_true(preview_error < grey_error / 2);
    lance_job_close(job);
    lance_model_close(model);
    model = shared;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_parameters_are_named_with_value_and_range),
        cmocka_unit_test(a_prompt_of_100000_characters_is_refused_and_the_next_one_works),
        cmocka_unit_test(a_source_must_be_there_and_make_sense),
        cmocka_unit_test(noise_of_the_wrong_size_is_refused),
        cmocka_unit_test(noise_that_is_no_number_is_refused),
        cmocka_unit_test(a_video_has_1_to_121_frames),
        cmocka_unit_test(a_source_video_must_have_frames_and_a_size),
        cmocka_unit_test(a_source_of_16000_by_16000_is_refused_before_anything_is_made_of_it),
        cmocka_unit_test(a_source_video_of_any_length_is_sampled_down),
        cmocka_unit_test(sources_of_odd_sizes_work),
        cmocka_unit_test(every_task_ends_with_what_it_promises),
        cmocka_unit_test(odd_prompts_make_pictures_too),
        cmocka_unit_test(a_picture_comes_alive_without_words),
        cmocka_unit_test(a_model_without_its_vae_still_answers),
        cmocka_unit_test(the_pieces_of_an_answer_join_to_its_text),
        cmocka_unit_test(a_batch_is_its_seeds_one_by_one),
        cmocka_unit_test(jobs_stepped_in_turn_give_what_they_give_alone),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(comfyui_noise_is_drawn_channels_first),
        cmocka_unit_test(the_first_frame_of_i2v_stays_what_the_picture_is),
        cmocka_unit_test(the_estimate_is_the_peak_within_five_percent),
        cmocka_unit_test(a_job_closed_at_any_step_leaves_no_memory_behind),
        cmocka_unit_test(a_job_over_the_memory_limit_is_refused_with_the_numbers),
        cmocka_unit_test(a_job_that_cannot_fit_is_refused_when_it_is_checked),
        cmocka_unit_test(beside_a_card_the_hosts_memory_has_a_limit_of_its_own),
        cmocka_unit_test(frames_and_previews_are_part_of_the_estimate),
        cmocka_unit_test(the_largest_video_is_estimated_and_its_steps_can_be_aborted),
        cmocka_unit_test(a_long_source_is_prepared_frame_by_frame_and_can_be_aborted),
        cmocka_unit_test(a_large_picture_shows_progress_while_the_vae_works_on_it),
        cmocka_unit_test(an_aborted_job_stops_at_every_stage),
        cmocka_unit_test(a_preview_shows_what_the_picture_will_be),
    };
    return cmocka_run_group_tests(tests, open_model, close_engine);
}
