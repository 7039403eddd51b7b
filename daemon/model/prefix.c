/* prefix.c: see prefix.h. */
#include "daemon/model/prefix.h"

#include <stdlib.h>

struct prefix {
    struct kernels *kernels;
    const struct decoder *decoder;
    const struct latent_tokens *latent_tokens;
    struct prefix_options options;
    struct kv_cache *common, *cond, *uncond;
    act *time_zero; /* [hidden_size] the time embedding of clean latents; NULL without a reference block */
};

/* Tokens of a split that are run: all, but the last token of an understanding prompt starts the decoding instead. */
static int rows_to_run(const struct prompt *prompt, int split)
{
    bool last_of_question = prompt->prefix_splits == prompt->split_count && split == prompt->split_count - 1;
    return prompt->splits[split].length - (last_of_question ? 1 : 0);
}

/* Splits before the first caption token: the same for both branches. */
static int common_splits(const struct prompt *prompt)
{
    int i = 0;
    while (i < prompt->prefix_splits && prompt->splits[i].modality != MODALITY_CAPTION)
        i++;
    return i;
}

struct capacities {
    int common, cond, uncond;
};

static struct capacities capacities_of(const struct prefix_options *o)
{
    struct capacities c = {.cond = o->extra_rows};
    const int common = common_splits(o->prompt);
    for (int i = 0; i < o->prompt->prefix_splits; i++) {
        int rows = rows_to_run(o->prompt, i);
        if (i < common) {
            c.common += rows;
        } else {
            c.cond += rows;
            if (o->guided && o->prompt->splits[i].modality != MODALITY_CAPTION)
                c.uncond += rows;
        }
    }
    return c;
}

static bool has_reference(const struct prompt *prompt)
{
    for (int i = 0; i < prompt->prefix_splits; i++)
        if (prompt->splits[i].attention == SPLIT_FULL_NOISE)
            return true;
    return false;
}

static size_t time_bytes(const struct decoder *decoder, const struct kernels *kernels)
{
    return (size_t)decoder_hidden_size(decoder) * kernels->act_bytes;
}

uint64_t prefix_bytes(const struct decoder *decoder, const struct kernels *kernels, const struct prefix_options *options)
{
    struct capacities c = capacities_of(options);
    return kv_cache_bytes(decoder, c.common) + kv_cache_bytes(decoder, c.cond) + kv_cache_bytes(decoder, c.uncond) +
           (has_reference(options->prompt) ? time_bytes(decoder, kernels) : 0);
}

int prefix_pass_rows(const struct prompt *prompt)
{
    int most = 1;
    for (int i = 0; i < prompt->prefix_splits; i++)
        most = rows_to_run(prompt, i) > most ? rows_to_run(prompt, i) : most;
    return most;
}

int prefix_open(struct prefix **out, const struct decoder *decoder, const struct latent_tokens *latent_tokens,
                struct kernels *kernels, const struct prefix_options *options, struct error *error)
{
    *out = NULL;
    struct prefix *p = calloc(1, sizeof *p);
    if (!p)
        return error_set(error, ERROR_NO_MEMORY, "prefix: no memory");
    *p = (struct prefix){
        .kernels = kernels, .decoder = decoder, .latent_tokens = latent_tokens, .options = *options};
    struct capacities c = capacities_of(options);
    int code = kv_cache_open(&p->common, decoder, NULL, c.common, error);
    if (!code)
        code = kv_cache_open(&p->cond, decoder, p->common, c.cond, error);
    if (!code && options->guided)
        code = kv_cache_open(&p->uncond, decoder, p->common, c.uncond, error);
    if (!code && has_reference(options->prompt))
        code = kernels->memory_alloc(kernels, (void **)&p->time_zero, time_bytes(decoder, kernels), error);
    if (code) {
        prefix_close(p);
        return code;
    }
    if (p->time_zero)
        latent_tokens_time(latent_tokens, 0, p->time_zero);
    *out = p;
    return 0;
}

void prefix_close(struct prefix *p)
{
    if (!p)
        return;
    kv_cache_close(p->cond);
    kv_cache_close(p->uncond);
    kv_cache_close(p->common);
    p->kernels->memory_free(p->kernels, p->time_zero);
    free(p);
}

int prefix_splits(const struct prefix *p) { return p->options.prompt->prefix_splits; }
struct kv_cache *prefix_cond(const struct prefix *p) { return p->cond; }
struct kv_cache *prefix_uncond(const struct prefix *p) { return p->uncond; }

/* Put the split's embeddings into the workspace and describe the block; rows of a visual block are ordered
 * [start, end][cells] when its cells have the generation weights. */
static int embed_split(struct prefix *p, const struct prompt_split *split, int rows, struct decoder_workspace *w,
                       const struct prefix_inputs *inputs, struct decoder_block *block, struct error *error)
{
    const struct prompt *prompt = p->options.prompt;
    struct kernels *k = p->kernels;
    const size_t hidden = (size_t)decoder_hidden_size(p->decoder);
    const int32_t *ids = prompt->ids + split->start;
    const int cells = rows - 2;
    act *x = decoder_workspace_x(w);
    int code = 0;
    *block = (struct decoder_block){
        .sequences = 1, .und_rows = rows, .causal = split->attention == SPLIT_CAUSAL, .store = true};
    switch (split->attention) {
    case SPLIT_CAUSAL:
        return decoder_embed(p->decoder, ids, rows, x, error);
    case SPLIT_FULL:
        code = decoder_embed(p->decoder, ids, 1, x, error);
        k->copy(k, act_at(k, x, hidden), inputs->vit_tokens, (size_t)cells * hidden);
        return code ? code : decoder_embed(p->decoder, ids + rows - 1, 1, act_at(k, x, (size_t)(rows - 1) * hidden), error);
    case SPLIT_FULL_NOISE:
        block->und_rows = 2;
        block->gen_rows = cells;
        block->gen_position_row = 2;
        code = decoder_embed(p->decoder, (int32_t[]){ids[0], ids[rows - 1]}, 2, x, error);
        act *gen = act_at(k, x, 2 * hidden);
        latent_tokens_embed(p->latent_tokens, inputs->reference_latents, cells, inputs->reference_positions, gen);
        k->add_row(k, p->time_zero, cells, (int)hidden, gen);
        return code;
    case SPLIT_NOISE:
        break;
    }
    return error_set(error, ERROR_INTERNAL, "prefix: a target block is not part of the prefix");
}

static int set_positions(struct prefix *p, const struct prompt_split *split, int rows, int32_t *const of[3],
                         struct decoder_workspace *w, struct error *error)
{
    const int32_t *at[3], *end[3];
    for (int axis = 0; axis < 3; axis++) {
        at[axis] = of[axis] + split->start;
        end[axis] = at[axis] + rows - 1;
    }
    if (split->attention != SPLIT_FULL_NOISE)
        return decoder_set_positions(p->decoder, w, 0, at, rows, error);
    int code = decoder_set_positions(p->decoder, w, 0, at, 1, error);
    if (!code)
        code = decoder_set_positions(p->decoder, w, 1, end, 1, error);
    for (int axis = 0; axis < 3; axis++)
        at[axis]++;
    return code ? code : decoder_set_positions(p->decoder, w, 2, at, rows - 2, error);
}

int prefix_run(struct prefix *p, int index, struct decoder_workspace *w, const struct prefix_inputs *inputs,
               const struct decoder_trace *traces, struct error *error)
{
    const struct prompt *prompt = p->options.prompt;
    const struct prompt_split *split = &prompt->splits[index];
    const int rows = rows_to_run(prompt, index);
    const bool common = index < common_splits(prompt);
    for (int branch = 0; branch < 2 && rows > 0; branch++) {
        if (branch == 1 && (common || !p->options.guided || split->modality == MODALITY_CAPTION))
            break;
        struct kv_cache *cache = common ? p->common : branch ? p->uncond : p->cond;
        bool own_positions = branch == 1 && p->options.consistent_uncond_positions;
        struct decoder_block block;
        int code = embed_split(p, split, rows, w, inputs, &block, error);
        if (!code)
            code = set_positions(p, split, rows, own_positions ? prompt->uncond_positions : prompt->positions, w, error);
        if (code)
            return code;
        block.caches = &cache;
        block.trace = traces ? &traces[branch] : NULL;
        decoder_run(p->decoder, w, &block);
    }
    return p->kernels->sync(p->kernels, error);
}
