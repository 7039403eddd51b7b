/* Tests of latents that come from a client and go back: encode, decode, sampling from latents and in parts, masks. */
#include "daemon/engine/lance.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/noise.h"
#include "daemon/engine/lance_model.h"
#include "daemon/engine/model/vae.h"
#include "tests/unit/engine_fixture.h"

enum { CHANNELS = 48, HEIGHT = 48, WIDTH = 64, ROWS = HEIGHT / 16, COLUMNS = WIDTH / 16, CELLS = ROWS * COLUMNS,
    FRAMES = 2 };

static uint8_t source_pixels[9 * HEIGHT * WIDTH * 3];
static float numbers[3 * CHANNELS * FRAMES * CELLS], ones[FRAMES * CELLS];

static int open_model(void **state)
{
    (void)state;
    fill_source(source_pixels, sizeof source_pixels);
    noise_torch_cpu(5, numbers, sizeof numbers / sizeof *numbers);
    for (int i = 0; i < FRAMES * CELLS; i++)
        ones[i] = 1;
    return open_engine();
}

static struct lance_media picture = {source_pixels, 1, HEIGHT, WIDTH, 0}, clip = {source_pixels, 6, HEIGHT, WIDTH, 12};

static struct lance_request small(enum lance_task task)
{
    struct lance_request r;
    lance_request_init(&r, task);
    if (task < LANCE_ENCODE) {
        r.prompt = "a red square";
        r.width = WIDTH;
        r.height = HEIGHT;
    }
    r.num_inference_steps = 5;
    r.num_frames = task == LANCE_T2V || task == LANCE_I2V ? 5 : 1;
    r.source = task == LANCE_VIDEO_EDIT                                         ? &clip
               : task == LANCE_T2I || task == LANCE_T2V || task == LANCE_DECODE ? NULL
                                                                                : &picture;
    return r;
}

/* A job's result that outlives it. */
struct outcome {
    int batch, frames, height, width;
    size_t values, bytes;
    float *latents, *state;
    uint8_t *pixels;
};

static struct outcome run(struct lance_request r)
{
    struct lance_job *job = start(&r);
    struct lance_result result = finish(job);
    struct outcome o = {.batch = result.batch, .frames = result.latent_frames, .height = result.latent_height,
                        .width = result.latent_width};
    o.values = (size_t)(o.batch * CHANNELS * o.frames * o.height * o.width);
    o.bytes = (size_t)(result.batch * result.frames * result.height * result.width) * 3;
    if (result.latents)
        memcpy(o.latents = malloc(o.values * sizeof(float)), result.latents, o.values * sizeof(float));
    if (result.latent_state)
        memcpy(o.state = malloc(o.values * sizeof(float)), result.latent_state, o.values * sizeof(float));
    if (result.pixels)
        memcpy(o.pixels = malloc(o.bytes), result.pixels, o.bytes);
    lance_job_close(job);
    return o;
}

static void drop(struct outcome *o)
{
    free(o->latents);
    free(o->state);
    free(o->pixels);
}

static struct lance_latents as_given(const struct outcome *o, const float *values)
{
    return (struct lance_latents){values, o->batch, CHANNELS, o->frames, o->height, o->width};
}

static void assert_same(const struct outcome *a, const struct outcome *b)
{
    assert_int_equal(a->values, b->values);
    assert_memory_equal(a->latents, b->latents, a->values * sizeof(float));
    assert_int_equal(!a->pixels, !b->pixels);
    if (a->pixels)
        assert_memory_equal(a->pixels, b->pixels, a->bytes);
}

static double difference(const float *a, const float *b, size_t n)
{
    double sum = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return sqrt(sum / norm);
}

static void assert_refused(struct lance_request r, int code, const char *words)
{
    struct lance_job *job;
    struct error error = {0};
    const uint64_t before = kernels->memory_in_use(kernels);
    assert_int_equal(lance_job_start(&job, model, &r, &error), code);
    if (!strstr(error.text, words))
        fail_msg("\"%s\" does not say \"%s\"", error.text, words);
    assert_null(job);
    assert_int_equal(lance_request_check(model, &r, &error), code);
    assert_int_equal(kernels->memory_in_use(kernels), before);
}

/* ---- the VAE alone ---- */

static void decoding_a_jobs_latents_gives_its_pixels(void **state)
{
    (void)state;
    for (int task = LANCE_T2I; task <= LANCE_T2V; task++) {
        struct lance_request r = small(task);
        r.batch_size = 2;
        r.seed = 11;
        struct outcome made = run(r);
        struct lance_latents latents = as_given(&made, made.latents);
        r = small(LANCE_DECODE);
        r.batch_size = 2;
        r.latents = &latents;
        struct outcome decoded = run(r);
        assert_null(decoded.latents);
        assert_int_equal(decoded.bytes, made.bytes);
        assert_memory_equal(decoded.pixels, made.pixels, made.bytes);
        drop(&made);
        drop(&decoded);
    }
}

/* The mean of the encoder, by the VAE itself. */
static void encoding_gives_the_encoders_mean_in_the_raw_scale(void **state)
{
    (void)state;
    struct lance_request r = small(LANCE_ENCODE);
    r.source = &clip; /* the sixth frame is left out */
    struct outcome encoded = run(r);
    assert_null(encoded.pixels);
    assert_int_equal(encoded.frames, FRAMES);
    assert_int_equal(encoded.height, ROWS);
    assert_int_equal(encoded.width, COLUMNS);
    struct vae_pass *pass;
    struct error error;
    enum { FRAME = HEIGHT * WIDTH * 3 };
    static float pixels[4 * FRAME], mean[CELLS * CHANNELS], log_variance[CELLS * CHANNELS];
    assert_int_equal(vae_encode_begin(&pass, model->vae, FRAMES, ROWS, COLUMNS, &error), 0);
    for (int frame = 0; frame < FRAMES; frame++) {
        const int count = frame ? 4 : 1;
        for (int i = 0; i < count * FRAME; i++)
            pixels[i] = (float)source_pixels[(frame ? FRAME : 0) + i] / 127.5f - 1;
        assert_int_equal(vae_encode_frames(pass, pixels, count, mean, log_variance, &error), 0);
        vae_latent_to_raw(model->vae, mean, CELLS);
        for (int i = 0; i < CELLS * CHANNELS; i++) {
            float got = encoded.latents[(i % CHANNELS * FRAMES + frame) * CELLS + i / CHANNELS];
            assert_true(fabsf(got - mean[i]) < 1e-4f * (1 + fabsf(mean[i])));
        }
    }
    vae_pass_close(pass);
    drop(&encoded);
}

static void what_is_encoded_is_cropped_in_the_middle(void **state)
{
    (void)state;
    enum { TOP = 5, LEFT = 7, H = HEIGHT + 11, W = WIDTH + 15 };
    static uint8_t larger[H * W * 3];
    for (int y = 0; y < HEIGHT; y++)
        memcpy(larger + ((TOP + y) * W + LEFT) * 3, source_pixels + y * WIDTH * 3, WIDTH * 3);
    struct lance_media media = {larger, 1, H, W, 0};
    struct lance_request r = small(LANCE_ENCODE);
    struct outcome exact = run(r);
    r.source = &media;
    struct outcome cropped = run(r);
    assert_same(&exact, &cropped);
    drop(&exact);
    drop(&cropped);
}

static void encoding_can_sample_and_resize_as_the_tasks_do(void **state)
{
    (void)state;
    struct lance_request r = small(LANCE_ENCODE);
    struct outcome mean = run(r);
    r.source_latent_mean = false;
    struct outcome sample = run(r);
    assert_true(difference(sample.latents, mean.latents, mean.values) > 0.01);
    r.source_latent_mean = true;
    r.width = 96;
    r.height = 32;
    struct outcome resized = run(r);
    assert_int_equal(resized.width, 6);
    assert_int_equal(resized.height, 2);
    drop(&mean);
    drop(&sample);
    drop(&resized);
}

static void what_the_vae_alone_cannot_do_is_refused(void **state)
{
    (void)state;
    static uint8_t wide[16 * 1200 * 3];
    struct lance_media media = {wide, 1, 16, 1200, 0};
    struct lance_request r = small(LANCE_ENCODE);
    r.source = &media;
    assert_refused(r, ERROR_BAD_REQUEST, "source width is 1200; accepted are integers from 16 to 1152");
    media = (struct lance_media){wide, 1, 15, 64, 0};
    assert_refused(r, ERROR_BAD_REQUEST, "source height is 15; accepted are integers from 16 to 1152");
    media = (struct lance_media){wide, 122, 16, 16, 0};
    assert_refused(r, ERROR_BAD_REQUEST, "source frames is 122; accepted are integers from 1 to 121");
    r.source = NULL;
    assert_refused(r, ERROR_BAD_REQUEST, "source is missing; task encode needs a picture or a video");
    struct lance_latents latents = {numbers, 1, CHANNELS, 1, ROWS, COLUMNS};
    r = small(LANCE_ENCODE);
    r.latents = &latents;
    assert_refused(r, ERROR_BAD_REQUEST, "latents are given, but task encode takes none");
    r = small(LANCE_DECODE);
    assert_refused(r, ERROR_BAD_REQUEST, "latents are missing; task decode needs them");
    latents.channels = 16;
    r.latents = &latents;
    assert_refused(r, ERROR_BAD_REQUEST, "latents are [1, 16, 1, 3, 4]; this job takes [1, 48, 1, 3, 4]");
    latents.channels = CHANNELS;
    latents.width = 73;
    assert_refused(r, ERROR_BAD_REQUEST, "latent columns is 73; accepted are integers from 1 to 72");
    latents.width = COLUMNS;
    numbers[7] = NAN;
    assert_refused_while_preparing(&r, "latents: value 7 of 576 is ");
    numbers[7] = INFINITY;
    assert_refused_while_preparing(&r, "accepted are finite numbers");
    numbers[7] = 1;
}

/* ---- sampling from latents ---- */

static void at_full_strength_latents_change_nothing(void **state)
{
    (void)state;
    for (int task = LANCE_T2I; task <= LANCE_VIDEO_EDIT; task++) {
        struct lance_request r = small(task);
        struct outcome plain = run(r);
        struct lance_latents latents = as_given(&plain, numbers),
                             mask = {ones, 1, 1, plain.frames, plain.height, plain.width};
        r.latents = &latents;
        struct outcome started = run(r);
        assert_same(&plain, &started);
        r.latent_mask = &mask;
        struct outcome masked = run(r);
        assert_same(&plain, &masked);
        drop(&plain);
        drop(&started);
        drop(&masked);
    }
}

static void two_halves_make_the_whole_to_the_byte(void **state)
{
    (void)state;
    for (int task = LANCE_T2I; task <= LANCE_VIDEO_EDIT; task++)
        for (int cut = task == LANCE_T2I ? 1 : 2; cut < (task == LANCE_T2I ? 5 : 3); cut++) {
            struct lance_request r = small(task);
            r.batch_size = 2;
            struct outcome whole = run(r);
            assert_null(whole.state);
            r.end_step = cut;
            r.leftover_noise = true;
            struct outcome first = run(r);
            assert_non_null(first.state);
            struct lance_latents latents = as_given(&first, first.latents), left = as_given(&first, first.state);
            r.start_step = cut;
            r.end_step = LANCE_END_STEP;
            r.add_noise = false;
            r.latents = &latents;
            r.latent_state = &left;
            struct outcome second = run(r);
            assert_same(&whole, &second);
            /* Without the state it is as good as float32 can tell. */
            r.latent_state = NULL;
            struct outcome rounded = run(r);
            assert_true(difference(rounded.latents, whole.latents, whole.values) < 1e-4);
            drop(&whole);
            drop(&first);
            drop(&second);
            drop(&rounded);
        }
}

static void a_state_counts_only_where_the_latents_are_still_its_own(void **state)
{
    (void)state;
    struct lance_request r = small(LANCE_T2I);
    r.end_step = 2;
    r.leftover_noise = true;
    struct outcome first = run(r);
    for (size_t i = 0; i < first.values; i += 3)
        first.latents[i] += 0.5f;
    struct lance_latents latents = as_given(&first, first.latents), left = as_given(&first, first.state);
    r.start_step = 2;
    r.end_step = LANCE_END_STEP;
    r.add_noise = false;
    r.latents = &latents;
    struct outcome without = run(r);
    r.latent_state = &left;
    struct outcome with = run(r);
    assert_true(difference(with.latents, without.latents, with.values) < 1e-4);
    drop(&first);
    drop(&without);
    drop(&with);
}

/* Noise of a client at time t: the same start by hand and by the engine. */
static void sampling_starts_from_the_mixture_of_latents_and_noise(void **state)
{
    (void)state;
    struct lance_request r = small(LANCE_T2I);
    struct lance_latents latents = {numbers, 1, CHANNELS, 1, ROWS, COLUMNS};
    float noise[CELLS * CHANNELS], mixed[CHANNELS * CELLS];
    noise_torch_cpu(9, noise, CELLS * CHANNELS);
    r.latents = &latents;
    r.noise_source = LANCE_NOISE_CLIENT;
    r.noise = noise;
    r.noise_values = CELLS * CHANNELS;
    r.start_step = 2;
    struct outcome by_engine = run(r);
    float t[6];
    t[2] = 0.6f * 3.5f / (1 + 2.5f * 0.6f);
    for (int cell = 0; cell < CELLS; cell++) {
        float x0[CHANNELS];
        for (int c = 0; c < CHANNELS; c++)
            x0[c] = numbers[c * CELLS + cell];
        vae_latent_from_raw(model->vae, x0, 1);
        for (int c = 0; c < CHANNELS; c++)
            x0[c] += t[2] / (1 - t[2]) * noise[cell * CHANNELS + c]; /* x_t / (1 - t) */
        vae_latent_to_raw(model->vae, x0, 1);
        for (int c = 0; c < CHANNELS; c++)
            mixed[c * CELLS + cell] = x0[c];
    }
    latents.values = mixed;
    r.add_noise = false;
    struct outcome by_hand = run(r);
    assert_true(difference(by_engine.latents, by_hand.latents, by_hand.values) < 1e-4);
    drop(&by_engine);
    drop(&by_hand);
}

static void less_strength_stays_nearer_to_the_latents(void **state)
{
    (void)state;
    struct lance_request r = small(LANCE_T2I);
    struct lance_latents latents = {numbers, 1, CHANNELS, 1, ROWS, COLUMNS};
    r.latents = &latents;
    double last = INFINITY;
    static const double strengths[] = {1, 0.5, 0.2, 0.02};
    for (int i = 0; i < 4; i++) {
        r.denoise = strengths[i];
        struct lance_job *job = start(&r);
        struct lance_result result = finish(job);
        assert_int_equal(result.stages[2].stage, STAGE_DENOISE);
        assert_int_equal(result.stages[2].steps, 5); /* denoise: all the steps asked for, as with KSampler */
        double away = difference(result.latents, numbers, CHANNELS * CELLS);
        assert_true(away < last);
        last = away;
        lance_job_close(job);
    }
    assert_true(last < 0.25);
}

static void zero_latents_are_empty_ones(void **state)
{
    (void)state;
    static const float zeros[CHANNELS * CELLS];
    struct lance_request r = small(LANCE_T2I);
    r.denoise = 0.5;
    struct outcome without = run(r);
    struct lance_latents latents = {zeros, 1, CHANNELS, 1, ROWS, COLUMNS};
    r.latents = &latents;
    struct outcome with = run(r);
    assert_same(&without, &with);
    drop(&without);
    drop(&with);
}

static void an_early_end_without_leftover_noise_is_a_clean_picture(void **state)
{
    (void)state;
    struct lance_request r = small(LANCE_T2I);
    r.end_step = 2;
    struct outcome clean = run(r);
    assert_null(clean.state);
    r.leftover_noise = true;
    struct outcome noisy = run(r);
    assert_non_null(noisy.state);
    assert_true(difference(clean.latents, noisy.latents, noisy.values) > 0.1);
    drop(&clean);
    drop(&noisy);
}

static void steps_and_latents_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    struct lance_latents latents = {numbers, 1, CHANNELS, 1, ROWS, COLUMNS}, other = latents;
    struct lance_request r = small(LANCE_T2I);
    r.start_step = 3;
    r.end_step = 3;
    assert_refused(r, ERROR_BAD_REQUEST,
                   "start_step is 3 and end_step is 3 of num_inference_steps 5; accepted is a start_step from 0 to 2");
    r.start_step = 5;
    r.end_step = LANCE_END_STEP;
    assert_refused(r, ERROR_BAD_REQUEST, "accepted is a start_step from 0 to 4");
    r.start_step = -1;
    assert_refused(r, ERROR_BAD_REQUEST, "start_step is -1");
    r.start_step = 0;
    r.end_step = 0;
    assert_refused(r, ERROR_BAD_REQUEST, "end_step is 0; accepted are integers from 1 to 10000");
    r = small(LANCE_T2I);
    static const double strengths[] = {0, -1, 1.01, NAN};
    for (int i = 0; i < 4; i++) {
        r.denoise = strengths[i];
        assert_refused(r, ERROR_BAD_REQUEST, "accepted are numbers from 0.0001 to 1");
    }
    r = small(LANCE_T2I);
    r.add_noise = false;
    assert_refused(r, ERROR_BAD_REQUEST, "latents are missing; add_noise false needs them");
    r.latents = &latents;
    assert_refused(r, ERROR_BAD_REQUEST, "add_noise is false at start_step 0");
    r.add_noise = true;
    latents.height = 5;
    assert_refused(r, ERROR_BAD_REQUEST, "latents are [1, 48, 1, 5, 4]; this job takes [1, 48, 1, 3, 4]");
    latents.height = ROWS;
    latents.batch = 2;
    assert_refused(r, ERROR_BAD_REQUEST, "latents are [2, 48, 1, 3, 4]; this job takes [1, 48, 1, 3, 4]");
    latents.batch = 1;
    other.frames = 2;
    r.latent_state = &other;
    assert_refused(r, ERROR_BAD_REQUEST, "latent_state are [1, 48, 2, 3, 4]; this job takes [1, 48, 1, 3, 4]");
    r = small(LANCE_X2T_IMAGE);
    r.latents = &latents;
    assert_refused(r, ERROR_BAD_REQUEST, "latents are given, but task x2t_image takes none");
}

/* ---- masks ---- */

static void what_the_mask_keeps_comes_back(void **state)
{
    (void)state;
    for (int task = LANCE_T2I; task <= LANCE_VIDEO_EDIT; task++) {
        struct lance_request r = small(task);
        struct outcome plain = run(r);
        const int cells = plain.frames * plain.height * plain.width;
        struct lance_latents latents = as_given(&plain, numbers),
                             mask = {NULL, 1, 1, plain.frames, plain.height, plain.width};
        float *values = calloc((size_t)cells, sizeof *values);
        for (int i = 0; i < cells; i++)
            values[i] = i % 3 == 0;
        mask.values = values;
        r.latents = &latents;
        r.latent_mask = &mask;
        struct outcome masked = run(r);
        const int given = task == LANCE_I2V ? plain.height * plain.width : 0; /* the picture's */
        for (int i = given; i < cells; i++)
            for (int c = 0; c < CHANNELS; c++) {
                size_t at = (size_t)(c * cells + i);
                if (i % 3)
                    assert_true(fabsf(masked.latents[at] - numbers[at]) <= 2e-5f * (1 + fabsf(numbers[at])));
                else
                    assert_true(masked.latents[at] != numbers[at]);
            }
        free(values);
        drop(&plain);
        drop(&masked);
    }
}

/* As ComfyUI's Wan22ImageToVideoLatent makes them: the start picture encoded, its frame masked with 0. */
static void a_kept_first_frame_is_i2v(void **state)
{
    (void)state;
    struct lance_request r = small(LANCE_I2V);
    r.source_latent_mean = true;
    struct outcome by_picture = run(r);
    struct lance_request encode = small(LANCE_ENCODE);
    struct outcome encoded = run(encode);
    static float values[CHANNELS * FRAMES * CELLS], mask_values[FRAMES * CELLS];
    for (int c = 0; c < CHANNELS; c++)
        memcpy(values + c * FRAMES * CELLS, encoded.latents + c * CELLS, CELLS * sizeof(float));
    for (int i = 0; i < FRAMES * CELLS; i++)
        mask_values[i] = i >= CELLS;
    struct lance_latents latents = {values, 1, CHANNELS, FRAMES, ROWS, COLUMNS},
                         mask = {mask_values, 1, 1, FRAMES, ROWS, COLUMNS};
    r = small(LANCE_T2V);
    r.latents = &latents;
    r.latent_mask = &mask;
    struct outcome by_mask = run(r);
    assert_true(difference(by_mask.latents, by_picture.latents, by_picture.values) < 1e-4);
    drop(&by_picture);
    drop(&encoded);
    drop(&by_mask);
}

static void masked_sampling_in_two_halves_makes_the_whole_to_the_byte(void **state)
{
    (void)state;
    static float mask_values[2 * FRAMES * CELLS];
    for (int i = 0; i < 2 * FRAMES * CELLS; i++)
        mask_values[i] = i % (FRAMES * CELLS) >= CELLS && i % 4 != 0; /* the first frame, and some of the second */
    struct lance_latents latents = {numbers, 2, CHANNELS, FRAMES, ROWS, COLUMNS},
                         mask = {mask_values, 2, 1, FRAMES, ROWS, COLUMNS};
    struct lance_request r = small(LANCE_T2V);
    r.batch_size = 2;
    r.latents = &latents;
    r.latent_mask = &mask;
    struct outcome whole = run(r);
    r.end_step = 3;
    r.leftover_noise = true;
    struct outcome first = run(r);
    struct lance_latents half = as_given(&first, first.latents), left = as_given(&first, first.state);
    r.start_step = 3;
    r.end_step = LANCE_END_STEP;
    r.add_noise = false;
    r.latents = &half;
    r.latent_state = &left;
    struct outcome second = run(r);
    assert_same(&whole, &second);
    drop(&whole);
    drop(&first);
    drop(&second);
}

static void masks_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    float values[CELLS] = {0};
    struct lance_latents latents = {numbers, 1, CHANNELS, 1, ROWS, COLUMNS}, mask = {values, 1, 1, 1, ROWS, COLUMNS};
    struct lance_request r = small(LANCE_T2I);
    r.latent_mask = &mask;
    assert_refused(r, ERROR_BAD_REQUEST, "latents are missing; latent_mask needs them");
    r.latents = &latents;
    assert_refused(r, ERROR_BAD_REQUEST, "latent_mask is 0 everywhere");
    values[3] = 1.5f;
    assert_refused(r, ERROR_BAD_REQUEST,
                   "latent_mask: value 3 of 12 is 1.5; accepted are numbers from 0 (keep) to 1 (generate)");
    values[3] = NAN;
    assert_refused(r, ERROR_BAD_REQUEST, "latent_mask: value 3 of 12 is ");
    values[3] = 0.5f;
    r.add_noise = false;
    r.start_step = 1;
    assert_refused(r, ERROR_BAD_REQUEST, "without add_noise accepted are only 0 (keep) and 1 (generate)");
    mask.width = 2;
    assert_refused(r, ERROR_BAD_REQUEST, "latent_mask are [1, 1, 1, 3, 2]; this job takes [1, 1, 1, 3, 4]");
}

/* ---- memory ---- */

static void the_estimate_of_the_vae_alone_is_the_peak_within_five_percent(void **state)
{
    (void)state;
    for (int task = LANCE_ENCODE; task <= LANCE_DECODE; task++)
        for (int frames = 1; frames <= FRAMES; frames++) {
            struct lance_request r = small(task);
            struct lance_latents latents = {numbers, 1, CHANNELS, frames, ROWS, COLUMNS};
            struct lance_media media = {source_pixels, frames == 1 ? 1 : 5, HEIGHT, WIDTH, 0};
            struct lance_memory estimate;
            struct error error;
            if (task == LANCE_ENCODE)
                r.source = &media;
            else
                r.latents = &latents;
            const uint64_t before = kernels->memory_in_use(kernels);
            assert_int_equal(lance_estimate(model, &r, &estimate, &error), 0);
            struct lance_job *job = start(&r);
            struct lance_result result = finish(job);
            assert_int_equal(result.estimated_bytes, estimate.device_bytes);
            if (fabs((double)result.peak_bytes / (double)estimate.device_bytes - 1) > 0.05)
                fail_msg("%s: estimate %llu, peak %llu", lance_task_name(task),
                         (unsigned long long)estimate.device_bytes, (unsigned long long)result.peak_bytes);
            lance_job_close(job);
            assert_int_equal(kernels->memory_in_use(kernels), before);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoding_a_jobs_latents_gives_its_pixels),
        cmocka_unit_test(encoding_gives_the_encoders_mean_in_the_raw_scale),
        cmocka_unit_test(what_is_encoded_is_cropped_in_the_middle),
        cmocka_unit_test(encoding_can_sample_and_resize_as_the_tasks_do),
        cmocka_unit_test(what_the_vae_alone_cannot_do_is_refused),
        cmocka_unit_test(at_full_strength_latents_change_nothing),
        cmocka_unit_test(two_halves_make_the_whole_to_the_byte),
        cmocka_unit_test(a_state_counts_only_where_the_latents_are_still_its_own),
        cmocka_unit_test(sampling_starts_from_the_mixture_of_latents_and_noise),
        cmocka_unit_test(less_strength_stays_nearer_to_the_latents),
        cmocka_unit_test(zero_latents_are_empty_ones),
        cmocka_unit_test(an_early_end_without_leftover_noise_is_a_clean_picture),
        cmocka_unit_test(steps_and_latents_that_make_no_sense_are_refused),
        cmocka_unit_test(what_the_mask_keeps_comes_back),
        cmocka_unit_test(a_kept_first_frame_is_i2v),
        cmocka_unit_test(masked_sampling_in_two_halves_makes_the_whole_to_the_byte),
        cmocka_unit_test(masks_that_make_no_sense_are_refused),
        cmocka_unit_test(the_estimate_of_the_vae_alone_is_the_peak_within_five_percent),
    };
    return cmocka_run_group_tests(tests, open_model, close_engine);
}
