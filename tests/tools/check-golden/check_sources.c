/* check_sources.c: from the source's pixels to ViT tokens and latents. */
#include "tests/tools/check-golden/checks.h"
#include "daemon/engine/latents.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Recorded pixels [3, frames, height, width] as [frames, height, width, 3]. */
static uint8_t *interleave(const struct tensor_view *tensor)
{
    const size_t plane = (size_t)tensor_elements(tensor) / 3;
    const uint8_t *from = tensor->data;
    uint8_t *out = malloc(3 * plane + 1);
    if (!out)
        abort();
    for (size_t i = 0; i < plane; i++)
        for (size_t colour = 0; colour < 3; colour++)
            out[i * 3 + colour] = from[colour * plane + i];
    return out;
}

/* Prepare the source as a job does, and compare with the recorded pixels. */
static void check_pixels(const struct check *c, const struct tensor_view *tensor, enum picture_use use)
{
    const struct job_plan *plan = &c->plan;
    const struct lance_media *source = c->golden->request.source;
    const struct picture_size size = use == PICTURE_FOR_VIT ? plan->vit_size : plan->vae_size;
    const int frames = (int)tensor->shape[1];
    if (tensor->dimensions != 4 || (int)tensor->shape[2] != size.height || (int)tensor->shape[3] != size.width) {
        report_failure(c->report, tensor->name, "%d x %d here", size.height, size.width);
        return;
    }
    const size_t bytes = (size_t)size.height * (size_t)size.width * 3;
    uint8_t *recorded = interleave(tensor), *prepared = malloc(bytes);
    if (!prepared)
        abort();
    size_t wrong = 0;
    for (int i = 0; i < frames; i++) {
        int from = plan->frame_indices[i < plan->source_frames ? i : plan->source_frames - 1];
        struct error error;
        if (picture_prepare(source->pixels + (size_t)from * (size_t)source->height * (size_t)source->width * 3,
                            source->height, source->width, plan->resolution, use, prepared, &error)) {
            report_failure(c->report, tensor->name, "%s", error.text);
            break;
        }
        for (size_t j = 0; j < bytes; j++)
            wrong += prepared[j] != recorded[(size_t)i * bytes + j];
    }
    report_equal(c->report, tensor->name, wrong == 0, "%zu of %zu differ", wrong, (size_t)frames * bytes);
    free(recorded);
    free(prepared);
}

static int run_vit(const struct check *c, const uint8_t *pixels, float *out, size_t n, struct error *error)
{
    struct kernels *k = c->model->kernels;
    struct vit_pass *pass = NULL;
    act *tokens = NULL;
    int done, blocks;
    int code = k->memory_alloc(k, (void **)&tokens, n * k->act_bytes, error);
    if (!code)
        code = vit_begin(&pass, c->model->vit, pixels, c->plan.vit_grid, tokens, error);
    while (!code && (code = vit_step(pass, &done, &blocks, error)) > 0)
        code = 0;
    if (!code)
        k->download(k, out, tokens, n);
    vit_pass_close(pass);
    k->memory_free(k, tokens);
    return code;
}

static void check_vit(const struct check *c, const struct tensor_view *pixels, const struct tensor_view *recorded)
{
    const size_t n = (size_t)tensor_elements(recorded);
    uint8_t *input = interleave(pixels);
    float *out = malloc(n * sizeof *out);
    struct error error;
    if (!out)
        abort();
    if (run_vit(c, input, out, n, &error))
        report_failure(c->report, recorded->name, "%s", error.text);
    else
        check_tensor(c, recorded, out, n, SINGLE_STAGE_BOUND);
    free(input);
    free(out);
}

/* Encode the recorded pixels; `mean` and `log_variance` [channels, cells] as they are recorded. */
static int encode(const struct check *c, const struct tensor_view *pixels, float *mean, float *log_variance,
                  struct error *error)
{
    const int frames = (int)pixels->shape[1], height = (int)pixels->shape[2], width = (int)pixels->shape[3];
    const int latent_frames = vae_latent_frames(frames), channels = vae_latent_channels(c->model->vae);
    const size_t cells = (size_t)(height / VAE_SPATIAL_STRIDE) * (size_t)(width / VAE_SPATIAL_STRIDE);
    const size_t frame_values = (size_t)height * (size_t)width * 3, n = (size_t)frames * frame_values;
    uint8_t *bytes = interleave(pixels);
    float *input = malloc(n * sizeof *input), *m = malloc(2 * cells * (size_t)channels * sizeof *m);
    if (!input || !m)
        abort();
    for (size_t i = 0; i < n; i++)
        input[i] = ((float)bytes[i] / 255.0f - 0.5f) / 0.5f;
    struct vae_pass *pass = NULL;
    int code = vae_encode_begin(&pass, c->model->vae, latent_frames, height / VAE_SPATIAL_STRIDE,
                                width / VAE_SPATIAL_STRIDE, error);
    for (int frame = 0; !code && frame < latent_frames; frame++) {
        int first = frame == 0 ? 0 : vae_frames(frame), count = frame == 0 ? 1 : VAE_TEMPORAL_STRIDE;
        float *v = m + cells * (size_t)channels;
        code = vae_encode_frames(pass, input + (size_t)first * frame_values, count, m, v, error);
        for (size_t i = 0; !code && i < cells * (size_t)channels; i++) {
            size_t to =
                i % (size_t)channels * cells * (size_t)latent_frames + (size_t)frame * cells + i / (size_t)channels;
            mean[to] = m[i];
            log_variance[to] = v[i];
        }
    }
    vae_pass_close(pass);
    free(bytes);
    free(input);
    free(m);
    return code;
}

/* The task encode on the recorded pixels: its latents, which are raw, against the recorded mean. */
static void check_encode_job(const struct check *c, const struct tensor_view *pixels, const struct tensor_view *mu)
{
    uint8_t *bytes = interleave(pixels);
    float *recorded = golden_floats(mu), *rows = malloc(mu->bytes);
    const struct lance_media source = {bytes, (int)pixels->shape[1], (int)pixels->shape[2], (int)pixels->shape[3], 0};
    struct lance_request request;
    struct lance_result result;
    struct error error;
    lance_request_init(&request, LANCE_ENCODE);
    request.source = &source;
    struct lance_job *job = check_run(c, &request, &result, &error);
    const size_t channels = (size_t)vae_latent_channels(c->model->vae), n = (size_t)tensor_elements(mu),
                 cells = n / channels;
    if (!rows)
        abort();
    if (!job) {
        report_failure(c->report, "job.encode", "%s", error.text);
    } else if ((size_t)(result.latent_frames * result.latent_height * result.latent_width) != cells) {
        report_failure(c->report, "job.encode", "the latents have another size here");
    } else {
        latents_frame_rows(result.latents, cells, channels, 0, cells, rows);
        vae_latent_from_raw(c->model->vae, rows, cells);
        float *normalised = malloc(mu->bytes);
        if (!normalised)
            abort();
        for (size_t i = 0; i < n; i++)
            normalised[i % channels * cells + i / channels] = rows[i];
        report_error(c->report, "job.encode", relative_error(normalised, recorded, n),
                     golden_bound(c->golden, mu->name, SINGLE_STAGE_BOUND));
        free(normalised);
    }
    lance_job_close(job);
    free(bytes);
    free(recorded);
    free(rows);
}

static void check_encoder(const struct check *c, const struct tensor_view *pixels)
{
    const struct tensor_view *mu = golden_own(c->golden, "vae_enc.0.mu"),
                             *log_var = golden_own(c->golden, "vae_enc.0.log_var"),
                             *latent = golden_own(c->golden, "vae_enc.0.latent"),
                             *eps = golden_own(c->golden, "vae_enc.0.eps");
    if (!mu || !log_var)
        return;
    const size_t n = (size_t)tensor_elements(mu);
    float *mean = malloc(n * sizeof *mean), *log_variance = malloc(n * sizeof *log_variance);
    struct error error;
    if (!mean || !log_variance)
        abort();
    if (encode(c, pixels, mean, log_variance, &error)) {
        report_failure(c->report, "vae_enc.0", "%s", error.text);
    } else {
        check_tensor(c, mu, mean, n, SINGLE_STAGE_BOUND);
        check_tensor(c, log_var, log_variance, n, SINGLE_STAGE_BOUND);
        if (latent && eps) {
            float *noise = golden_floats(eps);
            for (size_t i = 0; i < n; i++)
                mean[i] += noise[i] * expf(0.5f * log_variance[i]);
            check_tensor(c, latent, mean, n, SINGLE_STAGE_BOUND);
            free(noise);
        }
    }
    free(mean);
    free(log_variance);
    check_encode_job(c, pixels, mu);
}

void check_sources(const struct check *c)
{
    const struct tensor_view *vit_pixels = golden_find(c->golden, "vit_in.0.pixels_u8"),
                             *vae_pixels = golden_find(c->golden, "vae_enc.0.pixels_u8"),
                             *vit_out = golden_own(c->golden, "vit.0.out");
    if (vit_pixels && golden_own(c->golden, "vit_in.0.pixels_u8"))
        check_pixels(c, vit_pixels, PICTURE_FOR_VIT);
    if (vae_pixels && golden_own(c->golden, "vae_enc.0.pixels_u8"))
        check_pixels(c, vae_pixels, PICTURE_FOR_VAE);
    if (vit_pixels && vit_out)
        check_vit(c, vit_pixels, vit_out);
    if (vae_pixels)
        check_encoder(c, vae_pixels);
}
