/* latents.c: see latents.h.
 *
 * At the schedule's time t, x_t = (1 - t) * x0 + t * noise. Clients have latents as ComfyUI's core nodes do: channels
 * first, in the VAE's raw scale, and with leftover noise x_t / (1 - t), so that (1 - t) times the latents is x_t again
 * (class CONST in ComfyUI's comfy/model_sampling.py). Neither the division nor the raw scale keeps every bit of a
 * float32, so a result with leftover noise has x_t itself beside it: the state. A value of the state counts only
 * where it still makes the latent that came with it: a client that changed the latents and passed the old state on gets
 * what it changed.
 *
 * A mask of 0 keeps a cell: it is x0, noised to the time of each step. Whole frames at the front that are kept
 * (videos) are treated as i2v's picture is: clean, at time 0. Kept cells are clean in results too.
 */
#include "daemon/engine/latents.h"
#include "daemon/engine/model/latent_tokens.h"
#include "daemon/engine/model/vae.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- checks ---- */

static int check_shape(const char *name, const struct lance_latents *given, int batch, int channels,
                       struct token_grid grid, struct error *error)
{
    const bool fits = (given->batch == batch || (channels == 1 && given->batch == 1)) && given->channels == channels &&
                      given->frames == grid.frames && given->height == grid.height && given->width == grid.width;
    if (fits)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST,
                     "%s are [%d, %d, %d, %d, %d]; this job takes [%s%d, %d, %d, %d, %d] (batch, channels, "
                     "latent frames, rows, columns; a cell is %d x %d pixels)",
                     name, given->batch, given->channels, given->frames, given->height, given->width,
                     channels == 1 && batch > 1 ? "1 or " : "", batch, channels, grid.frames, grid.height, grid.width,
                     VAE_SPATIAL_STRIDE, VAE_SPATIAL_STRIDE);
}

static size_t values_of(const struct lance_latents *l)
{
    return (size_t)l->batch * (size_t)l->channels * (size_t)l->frames * (size_t)l->height * (size_t)l->width;
}

static int check_mask(const struct lance_request *r, struct error *error)
{
    const struct lance_latents *mask = r->latent_mask;
    const size_t count = values_of(mask);
    bool generates = false;
    for (size_t i = 0; i < count; i++) {
        const float m = mask->values[i];
        if (!(m >= 0 && m <= 1))
            return error_set(error, ERROR_BAD_REQUEST,
                             "latent_mask: value %zu of %zu is %g; accepted are numbers from 0 (keep) to 1 "
                             "(generate)",
                             i, count, (double)m);
        if (!r->add_noise && m != 0 && m != 1)
            return error_set(error, ERROR_BAD_REQUEST,
                             "latent_mask: value %zu of %zu is %g; without add_noise accepted are only 0 "
                             "(keep) and 1 (generate)",
                             i, count, (double)m);
        generates |= m != 0;
    }
    if (!generates)
        return error_set(error, ERROR_BAD_REQUEST,
                         "latent_mask is 0 everywhere, which leaves nothing to generate; accepted are masks "
                         "with values from 0 (keep) to 1 (generate)");
    return 0;
}

int latents_check(struct token_grid target, const struct lance_model *model, const struct lance_request *r,
                  struct error *error)
{
    const int channels = model->latent_tokens ? latent_tokens_channels(model->latent_tokens) : 0;
    int code = 0;
    if (r->latents)
        code = check_shape("latents", r->latents, r->batch_size, channels, target, error);
    if (!code && r->latent_state)
        code = check_shape("latent_state", r->latent_state, r->batch_size, channels, target, error);
    if (!code && r->latent_mask &&
        !(code = check_shape("latent_mask", r->latent_mask, r->batch_size, 1, target, error)))
        code = check_mask(r, error);
    return code;
}

int latents_kept_frames(const struct lance_latents *mask)
{
    const int cells = mask->height * mask->width;
    int kept = mask->frames;
    for (int item = 0; item < mask->batch; item++)
        for (int i = 0; i < kept * cells; i++)
            if (mask->values[(size_t)item * (size_t)(mask->frames * cells) + (size_t)i] != 0)
                kept = i / cells;
    return kept;
}

/* ---- layouts ---- */

void latents_frame_rows(const float *values, size_t cells, size_t channels, size_t first_cell, size_t count,
                        float *rows)
{
    for (size_t cell = 0; cell < count; cell++)
        for (size_t c = 0; c < channels; c++)
            rows[cell * channels + c] = values[c * cells + first_cell + cell];
}

static bool all_zero(const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (values[i] != 0)
            return false;
    return true;
}

/* One row of what a client holds for x_t (normalised): raw, channels in `row`. */
static void row_to_client(const struct lance_model *model, const float *x, float t, size_t channels, float *row)
{
    for (size_t c = 0; c < channels; c++)
        row[c] = x[c] / (1.0f - t);
    vae_latent_to_raw(model->vae, row, 1);
}

/* ---- where sampling starts ---- */

static int copy_mask(struct latents *l, const struct lance_latents *mask, struct error *error)
{
    const size_t rows = l->batch * l->cells;
    l->mask = malloc(rows * sizeof *l->mask);
    l->kept = malloc(rows * l->channels * sizeof *l->kept);
    l->kept_noise = malloc(rows * l->channels * sizeof *l->kept_noise);
    if (!l->mask || !l->kept || !l->kept_noise)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a mask of %zu cells", rows);
    for (size_t item = 0; item < l->batch; item++)
        memcpy(l->mask + item * l->cells, mask->values + (mask->batch == 1 ? 0 : item * l->cells),
               l->cells * sizeof *l->mask);
    return 0;
}

static bool is_clean(const struct latents *l, size_t row)
{
    return row % l->cells < l->first_row || (l->mask && l->mask[row] == 0);
}

static float noised(float x0, float noise, float t)
{
    return t == 1.0f ? noise : (1.0f - t) * x0 + t * noise;
}

/* What the client's latents say of a row: x0, or x_t where they are noisy. */
static void given_row(const struct latents *l, const struct lance_model *model, const struct lance_request *r,
                      size_t row, float *values)
{
    const size_t channels = l->channels, item = row / l->cells * l->cells * channels, cell = row % l->cells;
    const float t = r->add_noise || is_clean(l, row) ? 0 : l->first_t;
    latents_frame_rows(r->latents->values + item, l->cells, channels, cell, 1, values);
    float *state = l->scratch, *made = state + channels, *raw = made + channels;
    const bool has_state = r->latent_state && !r->add_noise;
    if (has_state) {
        memcpy(raw, values, channels * sizeof *raw);
        latents_frame_rows(r->latent_state->values + item, l->cells, channels, cell, 1, state);
        row_to_client(model, state, t, channels, made);
    }
    vae_latent_from_raw(model->vae, values, 1);
    for (size_t c = 0; c < channels; c++)
        values[c] = has_state && made[c] == raw[c] ? state[c] : (1.0f - t) * values[c];
}

/* Floats of a struct latents' buffers. */
static size_t scratch_floats(size_t channels) { return 4 * channels; }

uint64_t latents_bytes(const struct latents_shape *shape, int channels, bool masked)
{
    const uint64_t rows = (uint64_t)shape->batch * (uint64_t)token_grid_cells(shape->grid);
    const uint64_t mask = masked ? rows + 2 * rows * (uint64_t)channels : 0;
    return (mask + scratch_floats((size_t)channels)) * sizeof(float);
}

int latents_open(struct latents *l, const struct lance_model *model, const struct latents_shape *shape,
                 const struct lance_request *r, struct error *error)
{
    const size_t channels = (size_t)latent_tokens_channels(model->latent_tokens);
    *l = (struct latents){
        .batch = (size_t)shape->batch,
        .cells = (size_t)token_grid_cells(shape->grid),
        .channels = channels,
        .first_row = (size_t)shape->condition_frames * (size_t)(shape->grid.height * shape->grid.width),
        .first_t = shape->first_t,
        .last_t = shape->last_t,
        .empty = !r->latents || all_zero(r->latents->values, values_of(r->latents)),
        .scratch = malloc(scratch_floats(channels) * sizeof(float)),
    };
    if (!l->scratch)
        return error_set(error, ERROR_NO_MEMORY, "no memory for latents");
    return r->latent_mask ? copy_mask(l, r->latent_mask, error) : 0;
}

void latents_start(struct latents *l, const struct lance_model *model, const struct lance_request *r, int item,
                   float *x)
{
    const size_t channels = l->channels, first = (size_t)item * l->cells;
    float *given = l->scratch + 3 * channels;
    memset(given, 0, channels * sizeof *given);
    for (size_t row = first; row < first + l->cells; row++) {
        float *to = x + (row - first) * channels;
        if (!l->empty)
            given_row(l, model, r, row, given);
        if (l->mask) {
            memcpy(l->kept + row * channels, given, channels * sizeof *given);
            memcpy(l->kept_noise + row * channels, to, channels * sizeof *given);
        }
        const bool as_given = row % l->cells < l->first_row || !(r->add_noise || is_clean(l, row));
        for (size_t c = 0; c < channels; c++)
            to[c] = as_given ? given[c] : noised(given[c], to[c], l->first_t);
    }
}

void latents_keep(const struct latents *l, float t, float *x)
{
    for (size_t row = 0; row < l->batch * l->cells; row++) {
        const float m = l->mask[row];
        if (m == 1 || row % l->cells < l->first_row)
            continue;
        for (size_t i = row * l->channels; i < (row + 1) * l->channels; i++) {
            const float known = noised(l->kept[i], l->kept_noise[i], t);
            x[i] = m == 0 ? known : m * x[i] + (1 - m) * known;
        }
    }
}

/* ---- results ---- */

void latents_finish(const struct latents *l, const struct lance_model *model, const float *x, float *raw, float *state)
{
    for (size_t row = 0; row < l->batch * l->cells; row++) {
        const bool from_kept = l->mask && l->mask[row] == 0 && row % l->cells >= l->first_row;
        const float *from = (from_kept ? l->kept : x) + row * l->channels;
        row_to_client(model, from, is_clean(l, row) ? 0 : l->last_t, l->channels, l->scratch);
        for (size_t c = 0; c < l->channels; c++) {
            const size_t i = (row / l->cells * l->channels + c) * l->cells + row % l->cells;
            raw[i] = l->scratch[c];
            if (state)
                state[i] = from[c];
        }
    }
}

void latents_free(struct latents *l)
{
    free(l->mask);
    free(l->kept);
    free(l->kept_noise);
    free(l->scratch);
    *l = (struct latents){0};
}
