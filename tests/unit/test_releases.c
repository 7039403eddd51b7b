/* Tests of the published forms of Lance that are not the official folder, made here from the demo model
 * (tests/golden/releases.h): conversions for MLX, exports for understanding, the video checkpoint's layout. */
#include "daemon/engine/lance.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/engine/model/decoder.h"
#include "daemon/engine/model/vit.h"
#include "tests/golden/releases.h"

enum { HIDDEN = 128, VOCABULARY = 1024, GROUP = 128, TOKENS = 24, SIDE = 64, GRID = 4 };

static const char official[] = "demo/lance-demo";
static char root[] = "/tmp/lance-releases-XXXXXX";
static char folder[64];       /* of the current test's release: ROOT/N */
static struct kernels *kernels;
static uint8_t pixels[SIDE * SIDE * 3];
static struct lance_media picture = {pixels, 1, SIDE, SIDE, 0};

static int run_command(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int run_command(const char *format, ...)
{
    char command[500];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    return system(command);
}

static int make_root(void **state)
{
    (void)state;
    struct error error;
    if (!mkdtemp(root) || kernels_cpu_open(&kernels, 2, CPU_AUTO, &error))
        return -1;
    for (size_t i = 0; i < sizeof pixels; i++) { /* a red square on white */
        size_t row = i / 3 / SIDE, column = i / 3 % SIDE;
        bool inside = row > 12 && row < 52 && column > 12 && column < 52;
        pixels[i] = inside ? (i % 3 ? 30 : 220) : 255;
    }
    return 0;
}

static int remove_root(void **state)
{
    (void)state;
    uint64_t left = kernels->memory_in_use(kernels);
    kernels->close(kernels);
    return run_command("rm -r %s", root) || left;
}

static const char *next_folder(void)
{
    static int number;
    snprintf(folder, sizeof folder, "%s/%d", root, number++);
    return folder;
}

#define ASSERT_OK(call)                                                                                                \
    do {                                                                                                               \
        struct error error = {0};                                                                                      \
        if (call)                                                                                                      \
            fail_msg("%s", error.text);                                                                                \
    } while (0)

static void assert_says(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("says: %s\n  not: %s", text, part);
}

static void assert_refused(const char *model_dir, const char *message)
{
    struct checkpoint *checkpoint;
    struct error error = {0};
    assert_true(checkpoint_open(&checkpoint, &(struct checkpoint_options){.model_dir = model_dir}, &error) < 0);
    assert_says(error.text, message);
}

static struct checkpoint *open_checkpoint(const char *model_dir)
{
    struct checkpoint *checkpoint = NULL;
    ASSERT_OK(checkpoint_open(&checkpoint, &(struct checkpoint_options){.model_dir = model_dir}, &error));
    return checkpoint;
}

static struct lance_model *open_model(const char *model_dir, const char *vae)
{
    struct lance_model *model = NULL;
    const struct lance_model_options options = {.model_dir = model_dir, .vae_path = vae};
    ASSERT_OK(lance_model_open(&model, kernels, &options, &error));
    return model;
}

static struct lance_request question(void)
{
    struct lance_request r;
    lance_request_init(&r, LANCE_X2T_IMAGE);
    r.prompt = "What is in the picture?";
    r.source = &picture;
    r.max_new_tokens = 12;
    return r;
}

static struct lance_request drawing(void)
{
    struct lance_request r;
    lance_request_init(&r, LANCE_T2I);
    r.prompt = "a red square";
    r.width = r.height = 48;
    r.num_inference_steps = 3;
    r.decode = false;
    return r;
}

/* Run a job to its end; what it gives belongs to *job. */
static struct lance_result finish(struct lance_model *model, struct lance_request request, struct lance_job **job)
{
    struct lance_progress progress;
    struct lance_result result = {0};
    ASSERT_OK(lance_job_start(job, model, &request, &error));
    int code;
    do {
        struct error error = {0};
        code = lance_job_step(*job, &progress, &error);
        if (code < 0)
            fail_msg("%s", error.text);
    } while (code == LANCE_STEP_MORE);
    ASSERT_OK(lance_job_result(*job, &result, &error));
    return result;
}

static void assert_same_answer(const char *one_dir, const char *other_dir)
{
    struct lance_job *one_job, *other_job;
    struct lance_model *one = open_model(one_dir, NULL), *other = open_model(other_dir, NULL);
    struct lance_result a = finish(one, question(), &one_job), b = finish(other, question(), &other_job);
    assert_true(a.tokens > 1);
    assert_int_equal(a.tokens, b.tokens);
    assert_memory_equal(a.token_ids, b.token_ids, (size_t)a.tokens * sizeof *a.token_ids);
    lance_job_close(one_job);
    lance_job_close(other_job);
    lance_model_close(one);
    lance_model_close(other);
}

/* |got - want| / |want| */
static double relative_error(const float *got, const float *want, size_t n)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)got[i] - (double)want[i]) * ((double)got[i] - (double)want[i]);
        size += (double)want[i] * (double)want[i];
    }
    return sqrt(difference) / sqrt(size);
}

/* Hidden states [TOKENS, HIDDEN] of a causal prompt, and the logits of its last token. */
static void run_decoder(const char *model_dir, float *hidden, float *logits)
{
    struct checkpoint *checkpoint = open_checkpoint(model_dir);
    struct decoder *decoder;
    struct kv_cache *cache;
    struct decoder_workspace *workspace;
    void *memory;
    int32_t ids[TOKENS], steps[TOKENS];
    for (int i = 0; i < TOKENS; i++) {
        ids[i] = 7 + 37 * i;
        steps[i] = i;
    }
    const int32_t *const positions[3] = {steps, steps, steps};
    ASSERT_OK(decoder_open(&decoder, kernels, checkpoint, &(struct decoder_options){0}, &error));
    ASSERT_OK(kv_cache_open(&cache, decoder, NULL, TOKENS, &error));
    ASSERT_OK(decoder_workspace_open(&workspace, decoder, TOKENS, TOKENS, &error));
    ASSERT_OK(decoder_set_positions(decoder, workspace, 0, positions, TOKENS, &error));
    ASSERT_OK(decoder_embed(decoder, ids, TOKENS, decoder_workspace_x(workspace), &error));
    const struct decoder_block block = {
        .sequences = 1, .und_rows = TOKENS, .caches = &cache, .causal = true, .store = true};
    decoder_run(decoder, workspace, &block);
    kernels->download(kernels, hidden, decoder_workspace_x(workspace), TOKENS * HIDDEN);
    ASSERT_OK(kernels->memory_alloc(kernels, &memory, VOCABULARY * kernels->act_bytes, &error));
    decoder_logits(decoder, act_at(kernels, decoder_workspace_x(workspace), (TOKENS - 1) * HIDDEN), 1, memory);
    kernels->download(kernels, logits, memory, VOCABULARY);
    kernels->memory_free(kernels, memory);
    decoder_workspace_close(workspace);
    kv_cache_close(cache);
    decoder_close(decoder);
    checkpoint_close(checkpoint);
}

/* The ViT's tokens of the picture, [GRID * GRID / 4, HIDDEN]. */
static void run_vit(const char *model_dir, float *tokens)
{
    enum { FRAME = 14 * GRID * 14 * GRID * 3, VALUES = GRID * GRID / 4 * HIDDEN };
    static uint8_t frames[2 * FRAME];
    struct checkpoint *checkpoint = open_checkpoint(model_dir);
    struct vit *vit;
    struct vit_pass *pass;
    void *memory;
    int done, blocks, status;
    for (size_t i = 0; i < sizeof frames; i++)
        frames[i] = (uint8_t)(i * 7 + i / 168 * 3);
    ASSERT_OK(vit_open(&vit, kernels, checkpoint, false, &error));
    ASSERT_OK(kernels->memory_alloc(kernels, &memory, VALUES * kernels->act_bytes, &error));
    ASSERT_OK(vit_begin(&pass, vit, frames, (struct vit_grid){1, GRID, GRID}, memory, &error));
    do {
        struct error error = {0};
        status = vit_step(pass, &done, &blocks, &error);
        if (status < 0)
            fail_msg("%s", error.text);
    } while (status > 0);
    kernels->download(kernels, tokens, memory, VALUES);
    vit_pass_close(pass);
    kernels->memory_free(kernels, memory);
    vit_close(vit);
    checkpoint_close(checkpoint);
}

static void assert_same_vit(const char *one, const char *other)
{
    float a[GRID * GRID / 4 * HIDDEN], b[GRID * GRID / 4 * HIDDEN];
    run_vit(one, a);
    run_vit(other, b);
    assert_memory_equal(a, b, sizeof a);
}

/* --- MLX ------------------------------------------------------------------------------------------ */

static void an_mlx_release_opens_for_questions_and_says_what_it_lacks(void **state)
{
    (void)state;
    struct lance_model_info info;
    struct error error = {0};
    struct lance_request r = drawing();
    ASSERT_OK(release_mlx(official, next_folder(), GROUP, 4, false, &error));
    struct lance_model *model = open_model(folder, NULL);
    lance_model_info(model, &info);
    assert_string_equal(info.kind, "mlx-int4-g128");
    assert_int_equal(info.tasks, 1u << LANCE_X2T_IMAGE | 1u << LANCE_X2T_VIDEO);
    assert_int_equal(lance_request_check(model, &r, &error), ERROR_UNSUPPORTED);
    assert_says(error.text, "missing: VAE: Wan2.2_VAE.pth");
    lance_model_close(model);
}

static void quantised_mlx_weights_compute_as_the_dense_ones_they_stand_for(void **state)
{
    (void)state;
    static float hidden[TOKENS * HIDDEN], dense_hidden[TOKENS * HIDDEN], full[TOKENS * HIDDEN];
    static float logits[VOCABULARY], dense_logits[VOCABULARY];
    char release[64], twin[64];
    static const struct {
        int group, bits;
        const char *kind;
    } kinds[] = {
        {64, 8, "mlx-int8-g64"}, {32, 4, "mlx-int4-g32"}, {64, 4, "mlx-int4-g64"}, {GROUP, 4, "mlx-int4-g128"}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const int group = kinds[i].group, bits = kinds[i].bits;
        ASSERT_OK(release_mlx(official, strcpy(release, next_folder()), group, bits, false, &error));
        ASSERT_OK(release_mlx_twin(official, strcpy(twin, next_folder()), group, bits, &error));
        struct checkpoint *checkpoint = open_checkpoint(release);
        assert_string_equal(checkpoint_kind(checkpoint), kinds[i].kind);
        checkpoint_close(checkpoint);
        run_decoder(release, hidden, logits);
        run_decoder(twin, dense_hidden, dense_logits);
        double hidden_error = relative_error(hidden, dense_hidden, TOKENS * HIDDEN);
        double logits_error = relative_error(logits, dense_logits, VOCABULARY);
        if (!(hidden_error < 1e-5) || !(logits_error < 1e-5))
            fail_msg("%s: hidden states differ by %.1e, logits by %.1e", kinds[i].kind, hidden_error, logits_error);
        assert_same_answer(release, twin);
    }
    run_decoder(official, full, logits);
    assert_true(relative_error(hidden, full, TOKENS * HIDDEN) > 1e-3); /* they were quantised */
}

static void an_mlx_release_with_the_official_vae_draws_too(void **state)
{
    (void)state;
    char release[64], twin[64], vae[100];
    struct lance_job *jobs[2];
    ASSERT_OK(release_mlx(official, strcpy(release, next_folder()), GROUP, 4, false, &error));
    ASSERT_OK(release_mlx_twin(official, strcpy(twin, next_folder()), GROUP, 4, &error));
    snprintf(vae, sizeof vae, "%s/Wan2.2_VAE.pth", official);
    struct lance_model *models[2] = {open_model(release, vae), open_model(twin, vae)};
    struct lance_result a = finish(models[0], drawing(), &jobs[0]), b = finish(models[1], drawing(), &jobs[1]);
    assert_true(relative_error(a.latents, b.latents, 48 * 9) < 1e-4);
    for (int i = 0; i < 2; i++) {
        lance_job_close(jobs[i]);
        lance_model_close(models[i]);
    }
}

static void the_vit_of_an_mlx_release_may_be_channels_last(void **state)
{
    (void)state;
    ASSERT_OK(release_mlx(official, next_folder(), GROUP, 4, false, &error));
    assert_same_vit(folder, official);
    ASSERT_OK(release_mlx(official, next_folder(), GROUP, 4, true, &error));
    assert_same_vit(folder, official);
}

static void an_mlx_release_that_is_not_quantised_is_the_official_model(void **state)
{
    (void)state;
    static float hidden[TOKENS * HIDDEN], want[TOKENS * HIDDEN], logits[VOCABULARY];
    ASSERT_OK(release_mlx(official, next_folder(), 0, 4, false, &error));
    struct checkpoint *checkpoint = open_checkpoint(folder);
    assert_string_equal(checkpoint_kind(checkpoint), "bf16");
    checkpoint_close(checkpoint);
    run_decoder(folder, hidden, logits);
    run_decoder(official, want, logits);
    assert_memory_equal(hidden, want, sizeof hidden);
}

static void other_quantisations_of_mlx_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *message;
    } cases[] = {
        {"\"bits\":.*,", "\"bits\": 5,", "config.json: \"bits\" of \"quantization\" is neither 4 nor 8"},
        {"\"bits\":.*,", "\"bits\": 8,", "says that weights have 8 bits, but those of the tensors have 4"},
        {"affine", "mxfp4", "\"mode\" of \"quantization\" is neither \"affine\" nor, of 4 bits, \"nvfp4\""},
        {"\"group_size\":.*,", "\"group_size\": 64,", "says that 64 weights share a scale, but in the tensors 128 do"},
        {"\"group_size\":.*,", "", "\"group_size\" of \"quantization\" is missing"},
    };
    ASSERT_OK(release_mlx(official, next_folder(), GROUP, 4, false, &error));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(
            run_command("cd %s && cp config.json kept && sed -i 's/%s/%s/' config.json && ! cmp -s config.json kept",
                        folder, cases[i].from, cases[i].to),
            0);
        assert_refused(folder, cases[i].message);
        assert_int_equal(run_command("cd %s && mv kept config.json", folder), 0);
    }
}

static void the_tokenizer_of_an_mlx_release_may_be_in_the_official_folder_beside_it(void **state)
{
    (void)state;
    char release[64];
    ASSERT_OK(release_mlx(official, strcpy(release, next_folder()), GROUP, 4, false, &error));
    assert_int_equal(run_command("rm %s/merges.txt", release), 0);
    assert_refused(release, "missing: merges.txt; (an official folder Lance_3B beside this one has these files");
    assert_int_equal(run_command("ln -s \"$PWD\"/%s %s/Lance_3B", official, root), 0);
    struct checkpoint *checkpoint = open_checkpoint(release);
    assert_string_equal(checkpoint_kind(checkpoint), "mlx-int4-g128");
    assert_says(checkpoint_warnings(checkpoint), "the tokenizer is taken from");
    checkpoint_close(checkpoint);
    assert_int_equal(run_command("rm %s/Lance_3B", root), 0);
}

/* --- other layouts of the official release ----------------------------------------------------------- */

static void an_export_for_understanding_answers_and_refuses_to_draw(void **state)
{
    (void)state;
    struct lance_model_info info;
    struct lance_job *job;
    struct error error = {0};
    struct lance_request r = drawing();
    ASSERT_OK(release_understanding(official, next_folder(), &error));
    struct checkpoint *checkpoint = open_checkpoint(folder);
    assert_false(checkpoint_can_generate(checkpoint));
    assert_says(checkpoint_warnings(checkpoint),
                "t2i, t2v, i2v, image_edit and video_edit are off; missing: weights for");
    checkpoint_close(checkpoint);
    struct lance_model *model = open_model(folder, NULL);
    lance_model_info(model, &info);
    assert_int_equal(info.tasks, 1u << LANCE_X2T_IMAGE | 1u << LANCE_X2T_VIDEO);
    assert_int_equal(lance_request_check(model, &r, &error), ERROR_UNSUPPORTED);
    assert_says(error.text, "task t2i is not offered by model");
    assert_says(error.text,
                "missing: weights for generation (*_moe_gen, vae2llm, llm2vae, time_embedder); VAE: Wan2.2_VAE.pth");
    assert_int_equal(lance_job_start(&job, model, &r, &error), ERROR_UNSUPPORTED);
    lance_model_close(model);
    assert_same_answer(folder, official);
}

static void the_video_layout_sees_as_the_picture_layout_does(void **state)
{
    (void)state;
    ASSERT_OK(release_video(official, next_folder(), &error));
    struct checkpoint *checkpoint = open_checkpoint(folder);
    assert_true(checkpoint_can_generate(checkpoint) && checkpoint_can_see(checkpoint));
    assert_string_equal(checkpoint_warnings(checkpoint), "");
    checkpoint_close(checkpoint);
    assert_same_vit(folder, official);
    assert_same_answer(folder, official);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_mlx_release_opens_for_questions_and_says_what_it_lacks),
        cmocka_unit_test(quantised_mlx_weights_compute_as_the_dense_ones_they_stand_for),
        cmocka_unit_test(an_mlx_release_with_the_official_vae_draws_too),
        cmocka_unit_test(the_vit_of_an_mlx_release_may_be_channels_last),
        cmocka_unit_test(an_mlx_release_that_is_not_quantised_is_the_official_model),
        cmocka_unit_test(other_quantisations_of_mlx_are_refused),
        cmocka_unit_test(the_tokenizer_of_an_mlx_release_may_be_in_the_official_folder_beside_it),
        cmocka_unit_test(an_export_for_understanding_answers_and_refuses_to_draw),
        cmocka_unit_test(the_video_layout_sees_as_the_picture_layout_does),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
