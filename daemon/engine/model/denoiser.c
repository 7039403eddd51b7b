/* denoiser.c: see denoiser.h. */
#include "daemon/engine/model/denoiser.h"

#include <stdlib.h>

enum { UND_ROWS = 2 }; /* vision_start and vision_end of each sequence */

struct denoiser {
    struct kernels *kernels;
    const struct decoder *decoder;
    const struct latent_tokens *latent_tokens;
    struct decoder_workspace *workspace;
    struct denoiser_options options;
    struct kv_cache *caches[DECODER_MAX_SEQUENCES]; /* conditional ones of the batch, then unconditional ones */
    int32_t ends[UND_ROWS * DECODER_MAX_SEQUENCES]; /* token ids of the und rows */
    int cells;                                      /* of one sequence */
    act *positions;                                 /* [cells, hidden_size] */
    act *latents;                                   /* [batch, cells, channels] */
    act *velocities;                                /* [sequences, cells, channels] */
    act *times;                                     /* [2, hidden_size]: the step's, and that of clean latents */
    struct graph *graphs[2];                        /* of steps without guidance, and with it */
};

static int sequences_of(const struct denoiser_options *o) { return o->batch * (o->guided ? 2 : 1); }

int denoiser_pass_rows(const struct denoiser_options *o)
{
    return sequences_of(o) * (token_grid_cells(o->grid) + UND_ROWS);
}

enum { DENOISER_ACTS = 4 };
static void sizes_of(const struct decoder *decoder, const struct latent_tokens *latent_tokens,
                     const struct kernels *kernels, const struct denoiser_options *o, size_t bytes[DENOISER_ACTS])
{
    size_t cells = (size_t)token_grid_cells(o->grid), hidden = (size_t)decoder_hidden_size(decoder);
    size_t channels = (size_t)latent_tokens_channels(latent_tokens);
    bytes[0] = cells * hidden * kernels->act_bytes;
    bytes[1] = (size_t)o->batch * cells * channels * kernels->act_bytes;
    bytes[2] = (size_t)sequences_of(o) * cells * channels * kernels->act_bytes;
    bytes[3] = 2 * hidden * kernels->act_bytes;
}

uint64_t denoiser_bytes(const struct decoder *decoder, const struct latent_tokens *latent_tokens,
                        const struct kernels *kernels, const struct denoiser_options *options)
{
    size_t bytes[DENOISER_ACTS];
    sizes_of(decoder, latent_tokens, kernels, options, bytes);
    return bytes[0] + bytes[1] + bytes[2] + bytes[3];
}

/* Rotary tables in the order of the rows: both ends of every sequence, then every sequence's cells. */
static int set_positions(struct denoiser *d, struct error *error)
{
    const int sequences = sequences_of(&d->options);
    int code = 0;
    for (int s = 0; !code && s < sequences; s++) {
        const bool is_cond = s < d->options.batch;
        const struct prompt *prompt = is_cond ? d->options.prompt : prompt_uncond(d->options.prompt);
        const struct prompt_split *split = &prompt->splits[prompt->prefix_splits];
        int32_t *const *of = is_cond ? prompt->positions : prompt_uncond_positions(d->options.prompt);
        const int32_t *start[3], *cells[3], *end[3];
        for (int axis = 0; axis < 3; axis++) {
            start[axis] = of[axis] + split->start;
            cells[axis] = start[axis] + 1;
            end[axis] = cells[axis] + d->cells;
        }
        code = decoder_set_positions(d->decoder, d->workspace, UND_ROWS * s, start, 1, error);
        if (!code)
            code = decoder_set_positions(d->decoder, d->workspace, UND_ROWS * s + 1, end, 1, error);
        if (!code)
            code = decoder_set_positions(d->decoder, d->workspace, UND_ROWS * sequences + s * d->cells, cells, d->cells,
                                         error);
        d->ends[UND_ROWS * s] = prompt->ids[split->start];
        d->ends[UND_ROWS * s + 1] = prompt->ids[split->start + split->length - 1];
    }
    return code;
}

int denoiser_open(struct denoiser **out, const struct decoder *decoder, const struct latent_tokens *latent_tokens,
                  struct kernels *kernels, struct decoder_workspace *workspace, struct kv_cache *cond,
                  struct kv_cache *uncond, const struct denoiser_options *options, struct error *error)
{
    *out = NULL;
    if (sequences_of(options) > DECODER_MAX_SEQUENCES)
        return error_set(error, ERROR_TOO_LARGE, "denoiser: %d sequences; at most %d in one pass",
                         sequences_of(options), DECODER_MAX_SEQUENCES);
    struct denoiser *d = calloc(1, sizeof *d);
    if (!d)
        return error_set(error, ERROR_NO_MEMORY, "denoiser: no memory");
    *d = (struct denoiser){.kernels = kernels,
                           .decoder = decoder,
                           .latent_tokens = latent_tokens,
                           .workspace = workspace,
                           .options = *options,
                           .cells = token_grid_cells(options->grid)};
    for (int s = 0; s < sequences_of(options); s++)
        d->caches[s] = s < options->batch ? cond : uncond;
    act **const buffers[DENOISER_ACTS] = {&d->positions, &d->latents, &d->velocities, &d->times};
    size_t bytes[DENOISER_ACTS];
    sizes_of(decoder, latent_tokens, kernels, options, bytes);
    int code = 0;
    for (int i = 0; !code && i < DENOISER_ACTS; i++)
        code = kernels->memory_alloc(kernels, (void **)buffers[i], bytes[i], error);
    if (!code)
        code = latent_tokens_positions(latent_tokens, options->grid, d->positions, error);
    if (!code)
        code = set_positions(d, error);
    if (code) {
        denoiser_close(d);
        return code;
    }
    latent_tokens_time(latent_tokens, 0, act_at(kernels, d->times, (size_t)decoder_hidden_size(decoder)));
    *out = d;
    return 0;
}

void denoiser_close(struct denoiser *d)
{
    if (!d)
        return;
    act *const all[DENOISER_ACTS] = {d->positions, d->latents, d->velocities, d->times};
    for (int i = 0; i < DENOISER_ACTS; i++)
        d->kernels->memory_free(d->kernels, all[i]);
    for (int i = 0; i < 2; i++)
        d->kernels->graph_close(d->kernels, d->graphs[i]);
    free(d);
}

/* The latent tokens of every batch item at `gen`, [batch, cells, hidden_size]. */
static void embed_latents(struct denoiser *d, const param *x, float t, act *gen)
{
    struct kernels *k = d->kernels;
    const int hidden = decoder_hidden_size(d->decoder), channels = latent_tokens_channels(d->latent_tokens);
    const int given = d->options.condition_frames * d->options.grid.height * d->options.grid.width;
    k->param_to_act(k, d->latents, x, (size_t)d->options.batch * (size_t)d->cells * (size_t)channels);
    latent_tokens_time(d->latent_tokens, t, d->times);
    for (int item = 0; item < d->options.batch; item++) {
        size_t row = (size_t)item * (size_t)d->cells;
        act *tokens = act_at(k, gen, row * (size_t)hidden);
        latent_tokens_embed(d->latent_tokens, act_at(k, d->latents, row * (size_t)channels), d->cells, d->positions,
                            tokens);
        if (given > 0)
            k->add_row(k, act_at(k, d->times, (size_t)hidden), given, hidden, tokens);
        k->add_row(k, d->times, d->cells - given, hidden, act_at(k, tokens, (size_t)given * (size_t)hidden));
    }
}

int denoiser_velocity(struct denoiser *d, const param *x, float t, bool guided, const struct decoder_trace *trace,
                      const act **cond, const act **uncond, struct error *error)
{
    struct kernels *k = d->kernels;
    const size_t hidden = (size_t)decoder_hidden_size(d->decoder);
    const size_t channels = (size_t)latent_tokens_channels(d->latent_tokens);
    const int sequences = d->options.batch * (guided ? 2 : 1);
    const size_t batch_cells = (size_t)d->options.batch * (size_t)d->cells;
    act *und = decoder_workspace_x(d->workspace), *gen = act_at(k, und, (size_t)(UND_ROWS * sequences) * hidden);
    int code = decoder_embed(d->decoder, d->ends, UND_ROWS * sequences, und, error);
    if (code)
        return code;
    embed_latents(d, x, t, gen);
    if (guided)
        k->copy(k, act_at(k, gen, batch_cells * hidden), gen, batch_cells * hidden);
    struct decoder_block block = {
        .sequences = sequences,
        .und_rows = UND_ROWS,
        .gen_rows = d->cells,
        .time = t,
        .gen_position_row = UND_ROWS * sequences_of(&d->options),
        .caches = d->caches,
        .graph = &d->graphs[guided],
        .trace = trace,
    };
    decoder_run(d->decoder, d->workspace, &block);
    latent_tokens_velocity(d->latent_tokens, gen, sequences * d->cells, d->velocities);
    *cond = d->velocities;
    *uncond = guided ? act_at(k, d->velocities, batch_cells * channels) : NULL;
    return k->sync(k, error);
}
