/* The ViT and the VAE on the CUDA backend, against what the official code gives in float32.
 *
 * Bounds are 1.5 times the distance that the official code's own bf16 runs have from its float32 runs, taken from
 * tests/golden/data/distances.json: for the ViT on this very picture; for the VAE on other pictures and clips, the
 * smallest of them, as this synthetic clip was not recorded in bf16. Whole jobs: check-golden --backend cuda. */
#include "cuda_fixture.h"
#include "tests/unit/vision_fixture.h"

#include "daemon/engine/model/vae.h"
#include "daemon/engine/model/vit.h"

#define VIT_BOUND (1.5 * 0.0111)
#define DECODER_BOUND (1.5 * 0.0179)
#define MEAN_BOUND (1.5 * 0.00987)
#define LOG_VARIANCE_BOUND (1.5 * 0.00226)

static struct fixture fixture;

static int open_checkpoint(void **state)
{
    (void)state;
    struct error error = {0};
    choose_emulated_plugin();
    if (fixture_open(&fixture) < 0)
        return -1;
    fixture.kernels->close(fixture.kernels);
    if (kernels_cuda_load(&fixture.kernels, 0, &error) < 0) {
        print_error("%s\n", error.text);
        return -1;
    }
    return 0;
}

static int close_checkpoint(void **state)
{
    (void)state;
    return fixture.kernels ? fixture_close(&fixture) : -1;
}

static void the_vit_gives_the_official_tokens_of_a_picture(void **state)
{
    (void)state;
    enum { GRID_H = 12, GRID_W = 18, OUT = 128, N = GRID_H * GRID_W / 4 * OUT, FRAME = 196 * GRID_H * GRID_W * 3 };
    struct kernels *k = fixture.kernels;
    struct error error = {0};
    struct safetensors *file = open_recorded("tests/golden/data/vision/vit.safetensors");
    const struct tensor_view *picture = safetensors_find(file, "pixels");
    assert_non_null(picture);
    assert_int_equal(picture->bytes, FRAME);
    uint8_t *pair = malloc(2 * FRAME);
    float *want = recorded(file, "tokens", N), *got = malloc(N * sizeof *got);
    memcpy(pair, picture->data, FRAME);
    memcpy(pair + FRAME, picture->data, FRAME);
    struct vit *vit;
    struct vit_pass *pass;
    void *tokens;
    int code, done, blocks;
    ASSERT_OK(vit_open(&vit, k, fixture.checkpoint, false, &error), error);
    ASSERT_OK(k->memory_alloc(k, &tokens, N * k->act_bytes, &error), error);
    ASSERT_OK(vit_begin(&pass, vit, pair, (struct vit_grid){1, GRID_H, GRID_W}, tokens, &error), error);
    while ((code = vit_step(pass, &done, &blocks, &error)) > 0)
        ;
    ASSERT_OK(code, error);
    k->download(k, got, tokens, N);
    vit_pass_close(pass);
    k->memory_free(k, tokens);
    vit_close(vit);
    ASSERT_CLOSE(got, want, N, VIT_BOUND);
    free(got), free(want), free(pair);
    safetensors_close(file);
}

/* The beginning of the clip of tests/unit/test_vae.c: nothing in it depends on what follows, and in the second latent
 * frame's four pictures every cache is filled and shifted. */
enum { RECORDED_LATENT_FRAMES = 4, LATENT_FRAMES = 2, LATENT_HEIGHT = 3, LATENT_WIDTH = 2, CHANNELS = 48 };
enum { LATENT = LATENT_HEIGHT * LATENT_WIDTH * CHANNELS };
enum { RECORDED_FRAMES = 13, FRAMES = 5, HEIGHT = 16 * LATENT_HEIGHT, WIDTH = 16 * LATENT_WIDTH,
    FRAME = HEIGHT * WIDTH * 3 };

static void the_vae_decodes_a_clip_like_the_official_one(void **state)
{
    (void)state;
    enum { KEPT_FRAME = (HEIGHT / 2) * (WIDTH / 2) * 3, KEPT = FRAMES * KEPT_FRAME };
    struct error error = {0};
    struct safetensors *file = open_recorded("tests/golden/data/vision/vae.safetensors");
    float *want = recorded(file, "decoded_every_second", RECORDED_FRAMES * KEPT_FRAME);
    float *kept = malloc(KEPT * sizeof *kept), *out = kept;
    float *latent = synthetic(LATENT_FRAMES * LATENT), *chunk = malloc(4 * FRAME * sizeof *chunk);
    struct vae *vae;
    struct vae_pass *pass;
    ASSERT_OK(vae_open(&vae, fixture.kernels, fixture.checkpoint, &error), error);
    vae_latent_to_raw(vae, latent, LATENT_FRAMES * LATENT / CHANNELS);
    ASSERT_OK(vae_decode_begin(&pass, vae, LATENT_FRAMES, LATENT_HEIGHT, LATENT_WIDTH, &error), error);
    for (int t = 0; t < LATENT_FRAMES; t++) {
        int frames = 0;
        ASSERT_OK(vae_decode_frame(pass, latent + t * LATENT, chunk, &frames, &error), error);
        assert_int_equal(frames, t ? 4 : 1);
        for (int f = 0; f < frames; f++)
            for (int y = 0; y < HEIGHT; y += 2)
                for (int x = 0; x < WIDTH; x += 2)
                    for (int c = 0; c < 3; c++)
                        *out++ = chunk[f * FRAME + (y * WIDTH + x) * 3 + c];
    }
    vae_pass_close(pass);
    vae_close(vae);
    ASSERT_CLOSE(kept, want, KEPT, DECODER_BOUND);
    free(chunk), free(kept), free(latent), free(want);
    safetensors_close(file);
}

static void the_vae_encodes_a_clip_like_the_official_one(void **state)
{
    (void)state;
    struct error error = {0};
    struct safetensors *file = open_recorded("tests/golden/data/vision/vae.safetensors");
    float *want_mean = recorded(file, "mean", RECORDED_LATENT_FRAMES * LATENT);
    float *want_log_variance = recorded(file, "log_variance", RECORDED_LATENT_FRAMES * LATENT);
    float *pixels = synthetic((size_t)FRAMES * FRAME), *next = pixels;
    float mean[LATENT_FRAMES * LATENT], log_variance[LATENT_FRAMES * LATENT];
    struct vae *vae;
    struct vae_pass *pass;
    ASSERT_OK(vae_open(&vae, fixture.kernels, fixture.checkpoint, &error), error);
    ASSERT_OK(vae_encode_begin(&pass, vae, LATENT_FRAMES, LATENT_HEIGHT, LATENT_WIDTH, &error), error);
    for (int t = 0; t < LATENT_FRAMES; t++) {
        int frames = t ? 4 : 1;
        ASSERT_OK(vae_encode_frames(pass, next, frames, mean + t * LATENT, log_variance + t * LATENT, &error), error);
        next += frames * FRAME;
    }
    vae_pass_close(pass);
    vae_close(vae);
    ASSERT_CLOSE(mean, want_mean, LATENT_FRAMES * LATENT, MEAN_BOUND);
    ASSERT_CLOSE(log_variance, want_log_variance, LATENT_FRAMES * LATENT, LOG_VARIANCE_BOUND);
    free(pixels), free(want_log_variance), free(want_mean);
    safetensors_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vit_gives_the_official_tokens_of_a_picture),
        cmocka_unit_test(the_vae_decodes_a_clip_like_the_official_one),
        cmocka_unit_test(the_vae_encodes_a_clip_like_the_official_one),
    };
    return cmocka_run_group_tests(tests, open_checkpoint, close_checkpoint);
}
