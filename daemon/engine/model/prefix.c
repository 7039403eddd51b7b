/* prefix.c: see prefix.h. */
#include "daemon/engine/model/prefix.h"
#include "base/sha256.h"

#include <stdlib.h>
#include <string.h>

enum { COND, UNCOND, BRANCHES };

enum { JOINED_ROWS = 512 }; /* at most, of splits that are run in one pass: longer ones gain nothing by it */

struct prefix {
    struct kernels *kernels;
    const struct decoder *decoder;
    const struct latent_tokens *latent_tokens;
    struct prefix_cache *cache;
    struct prefix_options options;
    /* Of each split, and of each branch that has it to itself (a common one is the conditional branch's). */
    struct prefix_name names[BRANCHES][PROMPT_MAX_SPLITS];
    struct prefix_block *blocks[BRANCHES][PROMPT_MAX_SPLITS];
    struct kv_cache *ends[BRANCHES]; /* behind the last block: extra_rows tokens of this prefix's own */
    act *time_zero; /* [hidden_size] the time embedding of clean latents; NULL before a reference block is run */
};

/* Tokens of a split that are run: all, but the last token of an understanding prompt starts the decoding instead. */
static int rows_to_run(const struct prompt *prompt, int split)
{
    bool last_of_question = prompt->prefix_splits == prompt->split_count && split == prompt->split_count - 1;
    return prompt->splits[split].length - (last_of_question ? 1 : 0);
}

/* The prompt that a branch runs. */
static const struct prompt *prompt_of(const struct prefix_options *o, int branch)
{
    return branch == UNCOND ? prompt_uncond(o->prompt) : o->prompt;
}

static bool same_split(const struct prompt *a, const struct prompt *b, int index)
{
    const struct prompt_split *split = &a->splits[index], *other = &b->splits[index];
    const size_t bytes = (size_t)split->length * sizeof(int32_t);
    if (split->attention != other->attention || split->start != other->start || split->length != other->length ||
        memcmp(a->ids + split->start, b->ids + split->start, bytes) != 0)
        return false;
    for (int axis = 0; axis < 3; axis++)
        if (memcmp(a->positions[axis] + split->start, b->positions[axis] + split->start, bytes) != 0)
            return false;
    return true;
}

/* Splits before the first caption token: the same for both branches. */
static int common_splits(const struct prefix_options *o)
{
    const struct prompt *prompt = o->prompt, *uncond = prompt_of(o, UNCOND);
    int i = 0;
    while (i < prompt->prefix_splits && prompt->splits[i].modality != MODALITY_CAPTION && i < uncond->prefix_splits &&
           (uncond == prompt || same_split(prompt, uncond, i)))
        i++;
    return i;
}

/* Whether the branch runs this split on its own. */
static bool runs(const struct prefix_options *o, int branch, int split)
{
    const struct prompt *prompt = prompt_of(o, branch);
    if (split >= prompt->prefix_splits || rows_to_run(prompt, split) == 0)
        return false;
    const bool left_out = !prompt_of(o, COND)->negative && prompt->splits[split].modality == MODALITY_CAPTION;
    return branch == COND || (o->guided && split >= common_splits(o) && !left_out);
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

uint64_t prefix_bytes(const struct decoder *decoder, const struct kernels *kernels, const struct prefix_options *o)
{
    uint64_t bytes =
        kv_cache_bytes(decoder, o->extra_rows) + (has_reference(o->prompt) ? time_bytes(decoder, kernels) : 0);
    for (int branch = 0; branch < BRANCHES; branch++)
        for (int i = 0; i < prompt_prefix_splits(o->prompt); i++)
            if (runs(o, branch, i))
                bytes += kv_cache_bytes(decoder, rows_to_run(prompt_of(o, branch), i));
    return bytes;
}

/* Whether what the branches run of a split can be in one pass with others: text of more than one row, since a single
 * row is summed in another order (linear.c). */
static bool can_join(const struct prefix_options *o, int split)
{
    for (int branch = COND; branch < BRANCHES; branch++)
        if (runs(o, branch, split) && (prompt_of(o, branch)->splits[split].attention != SPLIT_CAUSAL ||
                                       rows_to_run(prompt_of(o, branch), split) < 2))
            return false;
    return true;
}

/* The longest split, and the longest that splits in a row come to, as far as they are joined. */
int prefix_pass_rows(const struct kernels *k, const struct prefix_options *o)
{
    int most = 1, joined = 0;
    for (int i = 0; i < prompt_prefix_splits(o->prompt); i++) {
        if (!can_join(o, i))
            joined = 0;
        for (int branch = COND; branch < BRANCHES; branch++) {
            const int rows = runs(o, branch, i) ? rows_to_run(prompt_of(o, branch), i) : 0;
            joined += can_join(o, i) ? rows : 0;
            most = rows > most ? rows : most;
        }
        const int together = joined < JOINED_ROWS ? joined : JOINED_ROWS;
        most = k->rows_alone && together > most ? together : most;
    }
    return most;
}

/* ---- blocks ---- */

/* The positions that a branch's tokens have; the official KV-cache path uses the conditional ones for both. */
static int32_t *const *positions_of(const struct prefix_options *o, int branch)
{
    if (branch == UNCOND && (o->prompt->negative || o->consistent_uncond_positions))
        return prompt_uncond_positions(o->prompt);
    return o->prompt->positions;
}

/* The block before split `split` of a branch, or NULL. */
static struct prefix_block *block_before(const struct prefix *p, int branch, int split)
{
    while (--split >= 0) {
        int owner = split < common_splits(&p->options) ? COND : branch;
        if (runs(&p->options, owner, split))
            return p->blocks[owner][split];
    }
    return NULL;
}

/* Name of a split behind what `before` names: a hash of all that its keys and values are computed from. */
static void make_name(const struct prefix_options *o, int branch, int index, const struct prefix_name *before,
                      struct prefix_name *name)
{
    const struct prompt *prompt = prompt_of(o, branch);
    const struct prompt_split *split = &prompt->splits[index];
    const size_t rows = (size_t)rows_to_run(prompt, index);
    const struct prefix_name *input = split->attention == SPLIT_FULL         ? &o->vit_input
                                      : split->attention == SPLIT_FULL_NOISE ? &o->reference_input
                                                                             : NULL;
    *name = (struct prefix_name){""};
    if ((before && !before->hex[0]) || (input && !input->hex[0]))
        return;
    const int32_t kind[] = {before != NULL, split->attention, (int32_t)rows};
    struct sha256 sha;
    sha256_start(&sha);
    sha256_add(&sha, kind, sizeof kind);
    if (before)
        sha256_add(&sha, before->hex, sizeof before->hex);
    if (input)
        sha256_add(&sha, input->hex, sizeof input->hex);
    sha256_add(&sha, prompt->ids + split->start, rows * sizeof(int32_t));
    for (int axis = 0; axis < 3; axis++)
        sha256_add(&sha, positions_of(o, branch)[axis] + split->start, rows * sizeof(int32_t));
    sha256_finish(&sha, name->hex);
}

/* Name every block, and take those that are known: of each branch an unbroken chain from the beginning. */
static void find_blocks(struct prefix *p)
{
    const int common = common_splits(&p->options);
    const struct prefix_name *shared = NULL; /* the last common block */
    bool shared_found = true;
    for (int branch = COND; branch < BRANCHES; branch++) {
        const struct prefix_name *before = branch == COND ? NULL : shared;
        bool found = shared_found;
        for (int i = 0; i < prefix_splits(p); i++) {
            if (!runs(&p->options, branch, i))
                continue;
            make_name(&p->options, branch, i, before, &p->names[branch][i]);
            before = &p->names[branch][i];
            if (found)
                found = (p->blocks[branch][i] = prefix_cache_find(p->cache, before)) != NULL;
            if (i < common) {
                shared = before;
                shared_found = found;
            }
        }
    }
}

/* When all blocks are there: the ends that are queried. */
static int open_ends(struct prefix *p, struct error *error)
{
    const int splits = prefix_splits(p);
    int code = 0;
    for (int i = 0; i < splits; i++)
        if (!prefix_has(p, i))
            return 0;
    for (int branch = COND; !code && branch < (p->options.guided ? BRANCHES : UNCOND); branch++) {
        struct prefix_block *last = block_before(p, branch, splits);
        if (!p->ends[branch])
            code = kv_cache_open(&p->ends[branch], p->decoder, last ? prefix_block_kv(last) : NULL,
                                 branch == COND ? p->options.extra_rows : 0, error);
    }
    return code;
}

int prefix_open(struct prefix **out, const struct decoder *decoder, const struct latent_tokens *latent_tokens,
                struct kernels *kernels, struct prefix_cache *cache, const struct prefix_options *options,
                struct error *error)
{
    *out = NULL;
    struct prefix *p = calloc(1, sizeof *p);
    if (!p)
        return error_set(error, ERROR_NO_MEMORY, "prefix: no memory");
    *p = (struct prefix){
        .kernels = kernels, .decoder = decoder, .latent_tokens = latent_tokens, .cache = cache, .options = *options};
    find_blocks(p);
    int code = open_ends(p, error);
    if (code)
        prefix_close(p);
    else
        *out = p;
    return code;
}

void prefix_close(struct prefix *p)
{
    if (!p)
        return;
    for (int branch = BRANCHES - 1; branch >= 0; branch--) {
        kv_cache_close(p->ends[branch]);
        for (int i = PROMPT_MAX_SPLITS - 1; i >= 0; i--)
            prefix_block_release(p->blocks[branch][i]);
    }
    p->kernels->memory_free(p->kernels, p->time_zero);
    free(p);
}

int prefix_splits(const struct prefix *p) { return prompt_prefix_splits(p->options.prompt); }
struct kv_cache *prefix_cond(const struct prefix *p) { return p->ends[COND]; }
struct kv_cache *prefix_uncond(const struct prefix *p) { return p->ends[UNCOND]; }

bool prefix_has(const struct prefix *p, int split)
{
    for (int branch = COND; branch < BRANCHES; branch++)
        if (runs(&p->options, branch, split) && !p->blocks[branch][split])
            return false;
    return true;
}

bool prefix_lacks(const struct prefix *p, enum split_attention attention)
{
    for (int branch = COND; branch < BRANCHES; branch++)
        for (int i = 0; i < prefix_splits(p); i++)
            if (runs(&p->options, branch, i) && !p->blocks[branch][i] &&
                prompt_of(&p->options, branch)->splits[i].attention == attention)
                return true;
    return false;
}

/* ---- running ---- */

static int make_time_zero(struct prefix *p, struct error *error)
{
    if (p->time_zero)
        return 0;
    int code = p->kernels->memory_alloc(p->kernels, (void **)&p->time_zero, time_bytes(p->decoder, p->kernels), error);
    if (!code)
        latent_tokens_time(p->latent_tokens, 0, p->time_zero);
    return code;
}

/* Put the embeddings of a split, whose tokens are `ids`, into the workspace and describe the block; rows of a visual
 * block are ordered [start, end][cells] when its cells have the generation weights. */
static int embed_split(struct prefix *p, const struct prompt_split *split, const int32_t *ids, int rows,
                       struct decoder_workspace *w, const struct prefix_inputs *inputs, struct decoder_block *block,
                       struct error *error)
{
    struct kernels *k = p->kernels;
    const size_t hidden = (size_t)decoder_hidden_size(p->decoder);
    const int cells = rows - 2;
    act *x = decoder_workspace_x(w);
    int code = 0;
    *block = (struct decoder_block){.sequences = 1,
                                    .und_rows = rows,
                                    .causal = split->attention == SPLIT_CAUSAL,
                                    .store = true,
                                    .only_stores = true};
    switch (split->attention) {
    case SPLIT_CAUSAL:
        return decoder_embed(p->decoder, ids, rows, x, error);
    case SPLIT_FULL:
        code = decoder_embed(p->decoder, ids, 1, x, error);
        k->copy(k, act_at(k, x, hidden), inputs->vit_tokens, (size_t)cells * hidden);
        return code ? code
                    : decoder_embed(p->decoder, ids + rows - 1, 1, act_at(k, x, (size_t)(rows - 1) * hidden), error);
    case SPLIT_FULL_NOISE:
        block->und_rows = 2;
        block->gen_rows = cells;
        block->gen_position_row = 2;
        if ((code = make_time_zero(p, error)))
            return code;
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

/* Compute the block of one branch, and offer it to others. */
static int run_block(struct prefix *p, int branch, int index, struct decoder_workspace *w,
                     const struct prefix_inputs *inputs, const struct decoder_trace *trace, struct error *error)
{
    const struct prompt *prompt = prompt_of(&p->options, branch);
    const struct prompt_split *split = &prompt->splits[index];
    const int rows = rows_to_run(prompt, index);
    struct prefix_block *made;
    struct decoder_block block;
    int code =
        prefix_block_open(&made, p->cache, &p->names[branch][index], block_before(p, branch, index), rows, error);
    if (code)
        return code;
    code = embed_split(p, split, prompt->ids + split->start, rows, w, inputs, &block, error);
    if (!code)
        code = set_positions(p, split, rows, positions_of(&p->options, branch), w, error);
    if (!code) {
        struct kv_cache *kv = prefix_block_kv(made);
        block.caches = &kv;
        block.trace = trace;
        decoder_run(p->decoder, w, &block);
        code = p->kernels->sync(p->kernels, error);
    }
    if (code) {
        prefix_block_release(made);
        return code;
    }
    prefix_block_publish(made);
    p->blocks[branch][index] = made;
    return 0;
}

/* Behind the splits that are run in one pass with split `first`, which is not there; `first`: it is run alone. */
static int joined_end(const struct prefix *p, int first)
{
    int end = first;
    for (int rows = 0; p->kernels->rows_alone && end < prefix_splits(p) && can_join(&p->options, end); end++) {
        for (int branch = COND; branch < BRANCHES; branch++)
            if (runs(&p->options, branch, end) && !p->blocks[branch][end])
                rows += rows_to_run(prompt_of(&p->options, branch), end);
        if (rows > JOINED_ROWS)
            break;
    }
    return end;
}

static int first_missing(const struct prefix *p, int from)
{
    while (from < prefix_splits(p) && prefix_has(p, from))
        from++;
    return from;
}

int prefix_runs_left(const struct prefix *p)
{
    int runs_left = 0;
    for (int at = first_missing(p, 0); at < prefix_splits(p); runs_left++) {
        const int end = joined_end(p, at);
        at = first_missing(p, end > at ? end : at + 1);
    }
    return runs_left;
}

/* The blocks of one pass, parents before their children. */
struct joined {
    int count, rows;
    struct prefix_block **places[BRANCHES * PROMPT_MAX_SPLITS]; /* in the prefix, where each block lies */
    struct kv_cache *caches[BRANCHES * PROMPT_MAX_SPLITS];
    int lengths[BRANCHES * PROMPT_MAX_SPLITS];
};

/* Open a block, and put its tokens behind those of the pass. */
static int join_block(struct prefix *p, int branch, int index, struct joined *j, struct decoder_workspace *w,
                      struct error *error)
{
    const struct prompt *prompt = prompt_of(&p->options, branch);
    const struct prompt_split *split = &prompt->splits[index];
    const int rows = rows_to_run(prompt, index);
    struct prefix_block **place = &p->blocks[branch][index];
    const int32_t *positions[3];
    struct prefix_block *before = block_before(p, branch, index);
    int code = prefix_block_open(place, p->cache, &p->names[branch][index], before, rows, error);
    if (code)
        return code;
    j->places[j->count] = place;
    j->caches[j->count] = prefix_block_kv(*place);
    j->lengths[j->count++] = rows;
    for (int axis = 0; axis < 3; axis++)
        positions[axis] = positions_of(&p->options, branch)[axis] + split->start;
    const size_t hidden = (size_t)decoder_hidden_size(p->decoder);
    code = decoder_embed(p->decoder, prompt->ids + split->start, rows,
                         act_at(p->kernels, decoder_workspace_x(w), (size_t)j->rows * hidden), error);
    if (!code)
        code = decoder_set_positions(p->decoder, w, j->rows, positions, rows, error);
    j->rows += rows;
    return code;
}

/* Compute the blocks of splits [first, end) that are not there in one pass, and offer them to others. */
static int run_joined(struct prefix *p, int first, int end, struct decoder_workspace *w, struct error *error)
{
    struct joined j = {0};
    int code = 0;
    for (int i = first; i < end; i++)
        for (int branch = COND; !code && branch < BRANCHES; branch++) {
            struct prefix_block **block = &p->blocks[branch][i];
            if (runs(&p->options, branch, i) && !*block &&
                !(*block = prefix_cache_find(p->cache, &p->names[branch][i])))
                code = join_block(p, branch, i, &j, w, error);
        }
    if (!code && j.count > 0) {
        decoder_run(p->decoder, w,
                    &(struct decoder_block){.sequences = j.count,
                                            .caches = j.caches,
                                            .causal = true,
                                            .store = true,
                                            .stored_rows = j.lengths,
                                            .only_stores = true});
        code = p->kernels->sync(p->kernels, error);
    }
    for (int i = 0; !code && i < j.count; i++)
        prefix_block_publish(*j.places[i]);
    for (int i = j.count - 1; code && i >= 0; i--) {
        prefix_block_release(*j.places[i]);
        *j.places[i] = NULL;
    }
    return code;
}

int prefix_run(struct prefix *p, int index, struct decoder_workspace *w, const struct prefix_inputs *inputs,
               const struct decoder_trace *traces, struct error *error)
{
    const int end = traces || prefix_has(p, index) ? index : joined_end(p, index);
    int code = end > index ? run_joined(p, index, end, w, error) : 0;
    for (int branch = COND; !code && branch < BRANCHES; branch++) {
        struct prefix_block **block = &p->blocks[branch][index];
        if (!runs(&p->options, branch, index) || *block)
            continue;
        /* Another job may have made it since this one began. */
        if (!(*block = prefix_cache_find(p->cache, &p->names[branch][index])))
            code = run_block(p, branch, index, w, inputs, traces ? &traces[branch] : NULL, error);
    }
    return code ? code : open_ends(p, error);
}
