/* check_job.c: whole jobs through lance.h, and the VAE alone on recorded latents. */
#include "tests/tools/check-golden/checks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double psnr_u8(const uint8_t *a, const uint8_t *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sum == 0 ? 999 : 10 * log10(255.0 * 255.0 * (double)n / sum);
}

/* In bf16 the recorded pictures are themselves some way from the float32 ones: the noise may be 1.5 times as strong. */
static double psnr_bound(const struct golden *g, const struct tensor_view *recorded)
{
    if (g->distances) {
        const double known = golden_distance(g, recorded->name) - 20 * log10(1.5);
        return isnan(known) ? 25 : known < PIXEL_PSNR ? known : PIXEL_PSNR;
    }
    if (strcmp(g->mode, "bf16") != 0)
        return PIXEL_PSNR;
    const struct tensor_view *twin = g->twin ? safetensors_find(g->twin, recorded->name) : NULL;
    double bound = PIXEL_PSNR;
    if (!twin || twin->bytes != recorded->bytes)
        bound = 25;
    else
        bound = psnr_u8(recorded->data, twin->data, (size_t)recorded->bytes) - 20 * log10(1.5);
    return bound < PIXEL_PSNR ? bound : PIXEL_PSNR;
}

/* ---- decoding ---- */

/* Decoded frames [frames, height, width, 3] compared with the recorded [3, frames, ...], which
 * may hold the last ones only. */
static void check_pixels(const struct check *c, const struct tensor_view *recorded, const float *pixels, size_t frames,
                         size_t frame_pixels)
{
    const size_t kept = (size_t)tensor_elements(recorded) / 3 / frame_pixels, skipped = frames - kept;
    float *planes = malloc(kept * frame_pixels * 3 * sizeof *planes);
    if (!planes)
        abort();
    for (size_t i = 0; i < kept * frame_pixels; i++)
        for (size_t colour = 0; colour < 3; colour++)
            planes[colour * kept * frame_pixels + i] = pixels[(skipped * frame_pixels + i) * 3 + colour];
    check_tensor(c, recorded, planes, kept * frame_pixels * 3, SINGLE_STAGE_BOUND);
    free(planes);
}

/* `latents` become raw. */
static int decode(const struct check *c, float *latents, float *pixels, struct error *error)
{
    const struct token_grid grid = c->plan.target;
    const size_t cells = (size_t)grid.height * (size_t)grid.width,
                 channels = (size_t)vae_latent_channels(c->model->vae);
    struct vae_pass *pass = NULL;
    vae_latent_to_raw(c->model->vae, latents, (size_t)grid.frames * cells);
    int code = vae_decode_begin(&pass, c->model->vae, grid.frames, grid.height, grid.width, error);
    for (int frame = 0, frames = 0; !code && frame < grid.frames; frame++) {
        code = vae_decode_frame(pass, latents + (size_t)frame * cells * channels, pixels, &frames, error);
        pixels += (size_t)frames * cells * VAE_SPATIAL_STRIDE * VAE_SPATIAL_STRIDE * 3;
    }
    vae_pass_close(pass);
    return code;
}

void check_decoding(const struct check *c)
{
    const struct tensor_view *latent = golden_own(c->golden, "final_latent"),
                             *recorded = golden_own(c->golden, "vae_dec.0.pixels"),
                             *bytes = golden_own(c->golden, "output_u8");
    if (!latent || !recorded)
        return;
    const struct token_grid grid = c->plan.target;
    const size_t frames = (size_t)vae_frames(grid.frames);
    const size_t frame_pixels = (size_t)grid.height * (size_t)grid.width * VAE_SPATIAL_STRIDE * VAE_SPATIAL_STRIDE;
    const size_t n = frames * frame_pixels * 3;
    /* The decoder writes up to four frames at a time. */
    float *latents = golden_floats(latent), *pixels = malloc((n + 3 * frame_pixels * 3) * sizeof *pixels);
    uint8_t *u8 = malloc(n);
    struct error error;
    if (!pixels || !u8)
        abort();
    if (tensor_elements(latent) != (uint64_t)token_grid_cells(grid) * (uint64_t)vae_latent_channels(c->model->vae)) {
        report_failure(c->report, "vae_dec.0", "the target has another size here");
    } else if (decode(c, latents, pixels, &error)) {
        report_failure(c->report, "vae_dec.0", "%s", error.text);
    } else {
        check_pixels(c, recorded, pixels, frames, frame_pixels);
        vae_pixels_to_u8(pixels, u8, n);
        if (bytes && bytes->bytes == n)
            report_psnr(c->report, "output_u8", psnr_u8(u8, bytes->data, n), psnr_bound(c->golden, bytes));
    }
    free(latents);
    free(pixels);
    free(u8);
}

/* ---- whole jobs ---- */

struct lance_job *check_run(const struct check *c, const struct lance_request *request, struct lance_result *result,
                            struct error *error)
{
    struct lance_job *job;
    struct lance_progress progress;
    if (lance_job_start(&job, c->model, request, error))
        return NULL;
    int code;
    do
        code = lance_job_step(job, &progress, error);
    while (code == LANCE_STEP_MORE);
    if (!code && !lance_job_result(job, result, error))
        return job;
    lance_job_close(job);
    return NULL;
}

/* The task decode on a job's latents gives the job's pixels. */
static void check_decode_job(const struct check *c, const struct lance_result *made)
{
    const struct lance_latents latents = {made->latents,       made->batch,         vae_latent_channels(c->model->vae),
                                          made->latent_frames, made->latent_height, made->latent_width};
    struct lance_request request;
    struct lance_result result;
    struct error error;
    lance_request_init(&request, LANCE_DECODE);
    request.latents = &latents;
    request.batch_size = made->batch;
    struct lance_job *job = check_run(c, &request, &result, &error);
    if (!job) {
        report_failure(c->report, "job.decode", "%s", error.text);
        return;
    }
    const size_t n = (size_t)made->batch * (size_t)made->frames * (size_t)made->height * (size_t)made->width * 3;
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++)
        wrong += result.pixels[i] != made->pixels[i];
    report_equal(c->report, "job.decode", wrong == 0, "%zu of %zu bytes differ", wrong, n);
    lance_job_close(job);
}

static void check_picture(const struct check *c, const struct lance_result *result)
{
    const struct tensor_view *final = golden_own(c->golden, "final_latent"),
                             *bytes = golden_own(c->golden, "output_u8");
    const size_t channels = (size_t)vae_latent_channels(c->model->vae),
                 cells = (size_t)token_grid_cells(c->plan.target);
    float *latents = malloc(cells * channels * sizeof *latents);
    if (!latents)
        abort();
    for (size_t i = 0; i < cells * channels; i++)
        latents[i] = result->latents[i % channels * cells + i / channels];
    vae_latent_from_raw(c->model->vae, latents, cells);
    if (final) {
        float *recorded = golden_floats(final);
        if (tensor_elements(final) == cells * channels)
            report_error(c->report, "job.final_latent", relative_error(latents, recorded, cells * channels),
                         golden_bound(c->golden, final->name, TRAJECTORY_BOUND));
        else
            report_failure(c->report, "job.final_latent", "the target has another size here");
        free(recorded);
    }
    if (bytes && result->pixels) {
        size_t n = (size_t)result->frames * (size_t)result->height * (size_t)result->width * 3;
        if (bytes->bytes == n)
            report_psnr(c->report, "job.output_u8", psnr_u8(result->pixels, bytes->data, n),
                        psnr_bound(c->golden, bytes));
        else
            report_failure(c->report, "job.output_u8", "%zu bytes here, %llu recorded", n,
                           (unsigned long long)bytes->bytes);
    }
    free(latents);
}

/* A bf16 run may choose another token than float32 where its own first two are close: then
 * nothing after it compares. */
static bool is_safe(const struct golden *g, int position)
{
    static const double safe_margin = 0.01; /* of the largest logit; bf16 keeps 8 bits */
    const struct tensor_view *tensor = golden_find(g, "logits.%d.top_vals", position);
    if (!golden_is_rounded(g) || !tensor || tensor_elements(tensor) < 2)
        return true;
    float *values = golden_floats(tensor);
    bool safe = values[0] - values[1] > safe_margin * fabsf(values[0]);
    free(values);
    return safe;
}

static void check_answer(const struct check *c, const struct lance_result *result)
{
    const struct tensor_view *recorded = golden_own(c->golden, "generated_ids");
    if (!recorded)
        return;
    int32_t *ids = golden_integers(recorded);
    const int count = (int)tensor_elements(recorded);
    int equal = 0;
    while (equal < count && equal < result->tokens && ids[equal] == result->token_ids[equal])
        equal++;
    bool close_call = equal < count && equal < result->tokens && !is_safe(c->golden, equal);
    report_equal(c->report, "job.generated_ids", close_call || (equal == count && result->tokens == count),
                 "%d of %d equal%s", equal, count, close_call ? ", then the recorded margin is too small" : "");
    free(ids);
}

void check_job(const struct check *c)
{
    struct lance_result result;
    struct error error;
    struct lance_job *job = check_run(c, &c->golden->request, &result, &error);
    if (!job) {
        report_failure(c->report, "job", "%s", error.text);
        return;
    }
    if (task_answers(c->golden->task))
        check_answer(c, &result);
    else
        check_picture(c, &result);
    if (result.pixels)
        check_decode_job(c, &result);
    double off = fabs((double)result.peak_bytes - (double)result.estimated_bytes) / (double)result.estimated_bytes;
    report_error(c->report, "job.memory", off, 0.05);
    lance_job_close(job);
}
