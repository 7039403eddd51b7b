/* latents_of.c: see latents_of.h. */
#include "tools/lancectl/graph/latents_of.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/noise.h"
#include "protocol/latent_shape.h"

static bool is_empty(const struct latent *latent)
{
    const size_t values = latent_values(latent);
    for (size_t i = 0; latent->samples && i < values; i++)
        if (latent->samples[i] != 0)
            return false;
    return true;
}

/* The shape of an empty latent of another model, as this one's. */
static int shape_of_empty(int shape[LATENT_DIMENSIONS], const struct latent *latent, struct error *error)
{
    const int *is = latent->shape;
    const bool is_known = is[1] == 4 || is[1] == 16;
    const bool says_its_size = latent->pixels_per_cell && is[2] == 1; /* others count frames otherwise */
    if (!(is_known || says_its_size) || !is_empty(latent))
        return error_set(error, ERROR_BAD_REQUEST,
                         "the latent has the shape [%d, %d, %d, %d, %d]; Lance takes those of the Wan 2.2 VAE, [batch, "
                         "%d, frames, height/16, width/16], and "
                         "empty ones of EmptyLatentImage, EmptySD3LatentImage and EmptyHunyuanLatentVideo",
                         is[0], is[1], is[2], is[3], is[4], LATENT_CHANNELS);
    const int pixels = latent->pixels_per_cell ? latent->pixels_per_cell : 8, height = is[3] * pixels,
              width = is[4] * pixels;
    if (height % VAE_SPATIAL_STRIDE || width % VAE_SPATIAL_STRIDE)
        return error_set(error, ERROR_BAD_REQUEST,
                         "width and height must be multiples of %d, the empty latent is %d x %d pixels",
                         VAE_SPATIAL_STRIDE, width, height);
    memcpy(shape, (const int[]){is[0], LATENT_CHANNELS, is[2], height / VAE_SPATIAL_STRIDE, width / VAE_SPATIAL_STRIDE},
           LATENT_DIMENSIONS * sizeof *shape);
    return 0;
}

int latents_of(float **samples, int shape[LATENT_DIMENSIONS], const struct latent *latent, struct error *error)
{
    *samples = NULL;
    const bool is_ours = latent->shape[1] == LATENT_CHANNELS;
    memcpy(shape, latent->shape, sizeof latent->shape);
    int code = is_ours ? 0 : shape_of_empty(shape, latent, error);
    if (code)
        return code;
    const struct latent like = {.shape = {shape[0], shape[1], shape[2], shape[3], shape[4]}};
    const size_t values = latent_values(&like);
    *samples = calloc(values + 1, sizeof **samples);
    if (!*samples)
        return error_set(error, ERROR_NO_MEMORY, "no memory for latents");
    if (is_ours && latent->samples)
        memcpy(*samples, latent->samples, values * sizeof **samples);
    return 0;
}

/* What torch.randn gives for the shape and the seed; with `places` the rows of a larger batch. malloc'ed. */
static int draw(float **drawn, const struct latent *latent, const int shape[LATENT_DIMENSIONS], uint64_t seed,
                struct error *error)
{
    const size_t item = (size_t)shape[1] * (size_t)shape[2] * (size_t)shape[3] * (size_t)shape[4];
    int items = shape[0];
    for (int i = 0; latent->noise_places && i < shape[0]; i++)
        items = latent->noise_places[i] >= items ? latent->noise_places[i] + 1 : items;
    *drawn = malloc((size_t)items * item * sizeof **drawn + 1);
    if (!*drawn)
        return error_set(error, ERROR_NO_MEMORY, "no memory for noise");
    /* An item is a multiple of 16 values, so that draws follow each other without a seam. */
    noise_torch_cpu(seed, *drawn, (size_t)items * item);
    if (!latent->noise_places)
        return 0;
    float *chosen = malloc((size_t)shape[0] * item * sizeof *chosen + 1);
    for (int i = 0; chosen && i < shape[0]; i++)
        memcpy(chosen + (size_t)i * item, *drawn + (size_t)latent->noise_places[i] * item, item * sizeof *chosen);
    free(*drawn);
    *drawn = chosen;
    return chosen ? 0 : error_set(error, ERROR_NO_MEMORY, "no memory for noise");
}

int latents_noise(float **rows, const struct latent *latent, const int shape[LATENT_DIMENSIONS], uint64_t seed,
                  const struct latent *noise, struct error *error)
{
    float *drawn;
    int code;
    *rows = NULL;
    if (noise) {
        int noise_shape[LATENT_DIMENSIONS];
        code = latents_of(&drawn, noise_shape, noise, error);
        if (!code && memcmp(noise_shape, shape, sizeof noise_shape) != 0)
            code = error_set(error, ERROR_BAD_REQUEST, "the noise has another shape than the latent");
    } else {
        code = draw(&drawn, latent, shape, seed, error);
    }
    const size_t tokens = (size_t)shape[2] * (size_t)shape[3] * (size_t)shape[4];
    if (!code && !(*rows = malloc((size_t)shape[0] * tokens * LATENT_CHANNELS * sizeof **rows + 1)))
        code = error_set(error, ERROR_NO_MEMORY, "no memory for noise");
    for (size_t batch = 0; !code && batch < (size_t)shape[0]; batch++)
        for (size_t channel = 0; channel < LATENT_CHANNELS; channel++)
            for (size_t token = 0; token < tokens; token++)
                (*rows)[(batch * tokens + token) * LATENT_CHANNELS + channel] =
                    drawn[(batch * LATENT_CHANNELS + channel) * tokens + token];
    free(drawn);
    return code;
}

static float *copy_of(const struct tensor_view *tensor)
{
    float *copy = malloc(tensor->bytes + 1);
    if (copy)
        memcpy(copy, tensor->data, tensor->bytes);
    return copy;
}

int latents_take(struct latent *out, const struct tensor_view *samples, const struct tensor_view *state,
                 struct error *error)
{
    *out = (struct latent){0};
    bool fits = samples && samples->dtype == DTYPE_F32 && samples->dimensions == LATENT_DIMENSIONS;
    for (int i = 0; fits && i < LATENT_DIMENSIONS; i++) {
        fits = samples->shape[i] >= 1 && samples->shape[i] <= INT_MAX;
        out->shape[i] = fits ? (int)samples->shape[i] : 0;
    }
    if (!fits)
        return error_set(error, ERROR_INTERNAL, "the daemon sent no latents, or of an unknown form");
    out->samples = copy_of(samples);
    if (state && state->dtype == DTYPE_F32 && state->bytes == samples->bytes)
        out->state = copy_of(state);
    return out->samples && (!state || out->state) ? 0 : error_set(error, ERROR_NO_MEMORY, "no memory for latents");
}
