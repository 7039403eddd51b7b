/* The VAE against the official one, and its promises about memory and order.
 * Recorded by tests/golden/make_vision_vectors.py and, for a whole picture, by the t2i_a case. */
#include "tests/unit/vision_fixture.h"

#include <math.h>

#include "daemon/engine/model/vae.h"
#include "daemon/engine/model/vae_blocks.h"

enum { LATENT_FRAMES = 4, LATENT_HEIGHT = 3, LATENT_WIDTH = 2, CHANNELS = 48 };
enum { CELLS = LATENT_HEIGHT * LATENT_WIDTH, LATENT = CELLS * CHANNELS };
enum { FRAMES = 13, HEIGHT = 16 * LATENT_HEIGHT, WIDTH = 16 * LATENT_WIDTH, FRAME = HEIGHT * WIDTH * 3 };

static struct fixture fixture;
static struct vae *vae;

static int open_vae(void **state)
{
    (void)state;
    struct error error = {0};
    if (fixture_open(&fixture) < 0)
        return -1;
    if (vae_open(&vae, fixture.kernels, fixture.checkpoint, &error) < 0) {
        print_error("%s\n", error.text);
        return -1;
    }
    return 0;
}

static int close_vae(void **state)
{
    (void)state;
    vae_close(vae);
    if (fixture.kernels->memory_in_use(fixture.kernels)) {
        print_error("device memory is still in use after vae_close\n");
        return -1;
    }
    return fixture_close(&fixture);
}

/* Decode `latent_frames` latent frames of the synthetic latent's size into fresh memory. */
static float *decode(const float *latent, int latent_frames)
{
    struct error error = {0};
    struct vae_pass *pass;
    float *pixels = malloc((size_t)vae_frames(latent_frames) * FRAME * sizeof *pixels);
    assert_non_null(pixels);
    ASSERT_OK(vae_decode_begin(&pass, vae, latent_frames, LATENT_HEIGHT, LATENT_WIDTH, &error), error);
    int done = 0;
    for (int t = 0; t < latent_frames; t++) {
        int frames = 0;
        /* Room for four frames is promised; the first frame uses one. */
        float chunk[4 * FRAME];
        ASSERT_OK(vae_decode_frame(pass, latent + t * LATENT, chunk, &frames, &error), error);
        assert_int_equal(frames, t ? 4 : 1);
        memcpy(pixels + done * FRAME, chunk, (size_t)frames * FRAME * sizeof *pixels);
        done += frames;
    }
    assert_int_equal(done, vae_frames(latent_frames));
    vae_pass_close(pass);
    return pixels;
}

static void a_recorded_picture_is_decoded(void **state)
{
    (void)state;
    struct error error = {0};
    struct safetensors *file = open_recorded("tests/golden/data/cases/t2i_a.f32.safetensors");
    float *latent = recorded(file, "vae_dec.0.latent", 8 * 8 * CHANNELS),
          *pixels = malloc(4 * 128 * 128 * 3 * sizeof(float));
    struct vae_pass *pass;
    int frames;
    ASSERT_OK(vae_decode_begin(&pass, vae, 1, 8, 8, &error), error);
    vae_latent_to_raw(vae, latent, 8 * 8);
    ASSERT_OK(vae_decode_frame(pass, latent, pixels, &frames, &error), error);
    vae_pass_close(pass);
    assert_int_equal(frames, 1);
    const struct tensor_view *want = safetensors_find(file, "output_u8");
    assert_non_null(want);
    assert_int_equal(want->bytes, 128 * 128 * 3);
    uint8_t *bytes = malloc(want->bytes);
    vae_pixels_to_u8(pixels, bytes, want->bytes);
    int differing = 0;
    for (size_t i = 0; i < want->bytes; i++) {
        assert_in_range(bytes[i] + 1 - ((const uint8_t *)want->data)[i], 0, 2);
        differing += bytes[i] != ((const uint8_t *)want->data)[i];
    }
    assert_true(differing <= 20); /* values that lie on the edge between two levels */
    free(bytes);
    free(pixels);
    free(latent);
    safetensors_close(file);
}

static void a_clip_is_decoded_like_the_official_one(void **state)
{
    (void)state;
    struct safetensors *file = open_recorded("tests/golden/data/vision/vae.safetensors");
    enum { KEPT = FRAMES * (HEIGHT / 2) * (WIDTH / 2) * 3 };
    float *want = recorded(file, "decoded_every_second", KEPT);
    float *latent = synthetic(LATENT_FRAMES * LATENT);
    vae_latent_to_raw(vae, latent, LATENT_FRAMES * LATENT / CHANNELS);
    float *pixels = decode(latent, LATENT_FRAMES);
    float *kept = malloc(KEPT * sizeof *kept), *out = kept;
    for (int f = 0; f < FRAMES; f++)
        for (int y = 0; y < HEIGHT; y += 2)
            for (int x = 0; x < WIDTH; x += 2)
                for (int c = 0; c < 3; c++)
                    *out++ = pixels[f * FRAME + (y * WIDTH + x) * 3 + c];
    ASSERT_CLOSE(kept, want, KEPT, 1e-5);
    free(kept);
    free(pixels);
    free(latent);
    free(want);
    safetensors_close(file);
}

static void a_clip_is_encoded_like_the_official_one(void **state)
{
    (void)state;
    struct error error = {0};
    struct safetensors *file = open_recorded("tests/golden/data/vision/vae.safetensors");
    float *want_mean = recorded(file, "mean", LATENT_FRAMES * LATENT);
    float *want_log_variance = recorded(file, "log_variance", LATENT_FRAMES * LATENT);
    float *pixels = synthetic((size_t)FRAMES * FRAME), *next = pixels;
    float mean[LATENT_FRAMES * LATENT], log_variance[LATENT_FRAMES * LATENT];
    struct vae_pass *pass;
    ASSERT_OK(vae_encode_begin(&pass, vae, LATENT_FRAMES, LATENT_HEIGHT, LATENT_WIDTH, &error), error);
    for (int t = 0; t < LATENT_FRAMES; t++) {
        int frames = t ? 4 : 1;
        ASSERT_OK(vae_encode_frames(pass, next, frames, mean + t * LATENT, log_variance + t * LATENT, &error), error);
        next += frames * FRAME;
    }
    vae_pass_close(pass);
    ASSERT_CLOSE(mean, want_mean, LATENT_FRAMES * LATENT, 1e-5);
    ASSERT_CLOSE(log_variance, want_log_variance, LATENT_FRAMES * LATENT, 1e-5);
    free(pixels);
    free(want_log_variance);
    free(want_mean);
    safetensors_close(file);
}

static void a_picture_is_the_first_frame_of_a_clip(void **state)
{
    (void)state;
    float *latent = synthetic(2 * LATENT), *clip = decode(latent, 2), *picture = decode(latent, 1);
    assert_memory_equal(clip, picture, FRAME * sizeof(float));
    free(picture);
    free(clip);
    free(latent);
}

static void passes_that_run_in_turn_do_not_disturb_each_other(void **state)
{
    (void)state;
    struct error error = {0};
    float *latent = synthetic(4 * LATENT), *want = decode(latent, 2);
    struct vae_pass *pass[2];
    float pixels[4 * FRAME];
    int frames;
    for (int i = 0; i < 2; i++)
        ASSERT_OK(vae_decode_begin(&pass[i], vae, 2, LATENT_HEIGHT, LATENT_WIDTH, &error), error);
    for (int t = 0; t < 2; t++) {
        ASSERT_OK(vae_decode_frame(pass[1], latent + (2 + t) * LATENT, pixels, &frames, &error), error);
        ASSERT_OK(vae_decode_frame(pass[0], latent + t * LATENT, pixels, &frames, &error), error);
        assert_memory_equal(pixels, want + (t ? FRAME : 0), (size_t)frames * FRAME * sizeof(float));
    }
    vae_pass_close(pass[0]);
    vae_pass_close(pass[1]);
    free(want);
    free(latent);
}

static struct vae_cost decode_cost(int frames, int height, int width)
{
    struct vae_cost cost;
    struct error error = {0};
    ASSERT_OK(vae_decode_cost(vae, frames, height, width, &cost, &error), error);
    return cost;
}

static struct vae_cost encode_cost(int frames, int height, int width)
{
    struct vae_cost cost;
    struct error error = {0};
    ASSERT_OK(vae_encode_cost(vae, frames, height, width, &cost, &error), error);
    return cost;
}

static void a_pass_takes_exactly_the_memory_that_was_promised(void **state)
{
    (void)state;
    struct error error = {0};
    static const int sizes[][3] = {{1, 1, 1}, {1, 3, 2}, {2, 3, 2}, {9, 5, 7}, {1, 16, 9}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int *size = sizes[i];
        struct vae_pass *pass;
        uint64_t before = fixture.kernels->memory_in_use(fixture.kernels);
        ASSERT_OK(vae_decode_begin(&pass, vae, size[0], size[1], size[2], &error), error);
        assert_int_equal(fixture.kernels->memory_in_use(fixture.kernels) - before,
                         decode_cost(size[0], size[1], size[2]).device_bytes);
        vae_pass_close(pass);
        ASSERT_OK(vae_encode_begin(&pass, vae, size[0], size[1], size[2], &error), error);
        assert_int_equal(fixture.kernels->memory_in_use(fixture.kernels) - before,
                         encode_cost(size[0], size[1], size[2]).device_bytes);
        vae_pass_close(pass);
        assert_int_equal(fixture.kernels->memory_in_use(fixture.kernels), before);
    }
    assert_int_equal(decode_cost(2, 5, 7).device_bytes, decode_cost(31, 5, 7).device_bytes);
    assert_true(decode_cost(1, 5, 7).device_bytes < decode_cost(2, 5, 7).device_bytes / 2);
}

/* More than 256 cells: a frame is computed block by block. */
enum { LARGE_HEIGHT = 17, LARGE_WIDTH = 16, LARGE_CELLS = LARGE_HEIGHT * LARGE_WIDTH,
    LARGE_FRAME = LARGE_CELLS * 16 * 16 * 3 };

/* A latent frame in one walk through the network, as small ones are. */
static void in_one_walk(struct vae_pass *pass, const struct vae_network *network, const float *in, float *out)
{
    struct error error = {0};
    const bool decodes = network == &vae->decoder;
    pass->due = pass->block = 0;
    pass->due_end = 1 << 20;
    pass->frames_out = 0;
    for (int i = 0; i < network->caches; i++)
        pass->cache[i].frames = pass->cache[i].frames_before;
    if (decodes) {
        memcpy(pass->host_latent, in, (size_t)LARGE_CELLS * CHANNELS * sizeof(float));
        pass->pixels_out = out;
        vae_decoder_run(pass);
    } else {
        pass->pixels_in = in;
        vae_encoder_run(pass);
    }
    ASSERT_OK(fixture.kernels->sync(fixture.kernels, &error), error);
    if (!decodes)
        memcpy(out, pass->host_latent, 2 * (size_t)LARGE_CELLS * CHANNELS * sizeof(float));
}

static void a_large_frame_is_decoded_block_by_block_to_the_same_bytes(void **state)
{
    (void)state;
    struct error error = {0};
    float *latent = synthetic(2 * (size_t)LARGE_CELLS * CHANNELS),
          *want = malloc(4 * (size_t)LARGE_FRAME * sizeof(float));
    float *pixels = malloc(4 * (size_t)LARGE_FRAME * sizeof(float));
    struct vae_pass *pass, *whole;
    int frames, steps = 0;
    ASSERT_OK(vae_decode_begin(&pass, vae, 2, LARGE_HEIGHT, LARGE_WIDTH, &error), error);
    ASSERT_OK(vae_decode_begin(&whole, vae, 2, LARGE_HEIGHT, LARGE_WIDTH, &error), error);
    for (int t = 0; t < 2; t++) {
        const float *from = latent + (size_t)t * LARGE_CELLS * CHANNELS;
        int more, before = steps;
        do {
            more = vae_decode_step(pass, from, pixels, &frames, &error);
            assert_true(more >= 0);
            steps++;
        } while (more);
        assert_true(steps - before > 10);
        assert_int_equal(frames, t ? 4 : 1);
        in_one_walk(whole, &vae->decoder, from, want);
        for (int i = 0; i < whole->network->caches; i++)
            whole->cache[i].frames_before = whole->cache[i].frames;
        whole->frame++;
        for (size_t i = 0; i < (size_t)frames * LARGE_FRAME; i++)
            want[i] = fminf(fmaxf(want[i], -1), 1);
        assert_memory_equal(pixels, want, (size_t)frames * LARGE_FRAME * sizeof(float));
    }
    assert_int_equal(steps, decode_cost(2, LARGE_HEIGHT, LARGE_WIDTH).steps);
    assert_int_equal(2, decode_cost(2, 16, 16).steps);
    vae_pass_close(pass);
    vae_pass_close(whole);
    free(latent);
    free(want);
    free(pixels);
}

static void a_large_picture_is_encoded_block_by_block_to_the_same_bytes(void **state)
{
    (void)state;
    struct error error = {0};
    const size_t values = (size_t)LARGE_CELLS * CHANNELS;
    float *pixels = synthetic(LARGE_FRAME), *moments = malloc(2 * values * sizeof(float)),
          *want = malloc(2 * values * sizeof(float));
    struct vae_pass *pass, *whole;
    int more, steps = 0;
    ASSERT_OK(vae_encode_begin(&pass, vae, 1, LARGE_HEIGHT, LARGE_WIDTH, &error), error);
    ASSERT_OK(vae_encode_begin(&whole, vae, 1, LARGE_HEIGHT, LARGE_WIDTH, &error), error);
    do {
        more = vae_encode_step(pass, pixels, 1, moments, moments + values, &error);
        assert_true(more >= 0);
        steps++;
    } while (more);
    assert_true(steps > 10);
    assert_int_equal(steps, encode_cost(1, LARGE_HEIGHT, LARGE_WIDTH).steps);
    in_one_walk(whole, &vae->encoder, pixels, want);
    assert_memory_equal(pass->host_latent, want, 2 * values * sizeof(float));
    vae_pass_close(pass);
    vae_pass_close(whole);
    free(pixels);
    free(moments);
    free(want);
}

static void frames_out_of_turn_are_refused(void **state)
{
    (void)state;
    struct error error = {0};
    float *values = synthetic((size_t)4 * FRAME), mean[LATENT], log_variance[LATENT];
    struct vae_pass *pass;
    int frames;
    ASSERT_OK(vae_encode_begin(&pass, vae, 2, LATENT_HEIGHT, LATENT_WIDTH, &error), error);
    assert_int_equal(vae_encode_frames(pass, values, 4, mean, log_variance, &error), ERROR_INTERNAL);
    assert_int_equal(vae_decode_frame(pass, mean, values, &frames, &error), ERROR_INTERNAL);
    ASSERT_OK(vae_encode_frames(pass, values, 1, mean, log_variance, &error), error);
    assert_int_equal(vae_encode_frames(pass, values, 1, mean, log_variance, &error), ERROR_INTERNAL);
    ASSERT_OK(vae_encode_frames(pass, values, 4, mean, log_variance, &error), error);
    assert_int_equal(vae_encode_frames(pass, values, 4, mean, log_variance, &error), ERROR_INTERNAL);
    vae_pass_close(pass);
    free(values);
}

static void the_raw_scale_and_back_is_the_identity(void **state)
{
    (void)state;
    float *want = synthetic(LATENT), *got = synthetic(LATENT);
    vae_latent_to_raw(vae, got, CELLS);
    assert_true(fabsf(got[0] - (want[0] * 0.4765f - 0.2289f)) < 1e-6f);
    vae_latent_from_raw(vae, got, CELLS);
    ASSERT_CLOSE(got, want, LATENT, 1e-6);
    free(got);
    free(want);
}

static void pixels_round_half_to_even_and_are_clipped(void **state)
{
    (void)state;
    const float half = 1.0f / 255.0f; /* half a level */
    const float pixels[] = {-1, 1, -7, 7, 0, half, -half, NAN, -INFINITY, INFINITY};
    const uint8_t want[] = {0, 255, 0, 255, 128, 128, 127, 0, 0, 255};
    uint8_t got[sizeof want];
    vae_pixels_to_u8(pixels, got, sizeof want);
    assert_memory_equal(got, want, sizeof want);
}

static int attempt_open(struct error *error)
{
    struct vae *attempted;
    int code = vae_open(&attempted, fixture.kernels, fixture.checkpoint, error);
    if (code == 0)
        vae_close(attempted);
    else
        assert_null(attempted);
    return code;
}

static int attempt_pass(struct error *error)
{
    struct vae_pass *pass;
    int code = vae_decode_begin(&pass, vae, 2, LATENT_HEIGHT, LATENT_WIDTH, error);
    if (code == 0)
        vae_pass_close(pass);
    else
        assert_null(pass);
    return code;
}

static void running_out_of_memory_is_reported_and_leaks_nothing(void **state)
{
    (void)state;
    assert_true(count_failures(fixture.kernels, attempt_open) > 20); /* a vector for every normalisation */
    assert_int_equal(count_failures(fixture.kernels, attempt_pass), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_recorded_picture_is_decoded),
        cmocka_unit_test(a_clip_is_decoded_like_the_official_one),
        cmocka_unit_test(a_clip_is_encoded_like_the_official_one),
        cmocka_unit_test(a_picture_is_the_first_frame_of_a_clip),
        cmocka_unit_test(passes_that_run_in_turn_do_not_disturb_each_other),
        cmocka_unit_test(a_pass_takes_exactly_the_memory_that_was_promised),
        cmocka_unit_test(a_large_frame_is_decoded_block_by_block_to_the_same_bytes),
        cmocka_unit_test(a_large_picture_is_encoded_block_by_block_to_the_same_bytes),
        cmocka_unit_test(frames_out_of_turn_are_refused),
        cmocka_unit_test(running_out_of_memory_is_reported_and_leaks_nothing),
        cmocka_unit_test(the_raw_scale_and_back_is_the_identity),
        cmocka_unit_test(pixels_round_half_to_even_and_are_clipped),
    };
    return cmocka_run_group_tests(tests, open_vae, close_vae);
}
