/* decoder.c: see decoder.h. */
#include "daemon/engine/model/decoder.h"

#include "daemon/engine/model/byte_matrix.h"
#include "kernels/formats/numbers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UND, GEN, EXPERTS };

enum {
    LAYERS_PER_GRAPH = 3, /* a cancelled job has a few graphs of these still to run */
    MLP_CHUNK_ROWS = 2304, /* rows of the MLP's wide activations alive at once: 768 x 768 with guidance is twice that */
    MLP_PIECE_ROWS = 128,  /* pieces of more rows are multiples of these, as a card's products have tiles of */
    WATCHED_ROWS = 256     /* rows on the host at once, when someone watches */
};

static const char *const expert_suffix[EXPERTS] = {"", "_moe_gen"};
static const char embedding_name[] = "language_model.model.embed_tokens";

struct expert {
    struct linear *q, *k, *v, *o, *gate, *up, *down;
    param *input_norm, *post_attention_norm, *q_norm, *k_norm; /* inside decoder.vectors; the last two may be NULL */
};

struct decoder {
    struct kernels *kernels;
    int hidden, layer_count, heads, kv_heads, head_dim, intermediate, vocab;
    int experts; /* 1: an understanding-only checkpoint */
    float eps;
    struct linear *embedding, *lm_head; /* may be the same */
    struct byte_matrix head;            /* what lm_head is, where it was rounded */
    struct expert (*layers)[EXPERTS];
    param *final_norm[EXPERTS];
    param *vectors;          /* all norm weights, one allocation */
    double *inverse_frequency; /* [head_dim/2], per pair of a head */
    int *axis;                 /* [head_dim/2], which position (0 frame, 1 row, 2 column) turns the pair */
    linear_input_watch *watch; /* NULL: nobody watches */
    void *watch_context;
    float *watched;            /* [WATCHED_ROWS, width of the widest input] */
    const atomic_bool *cancelled; /* NULL, or see decoder_watch_until */
};

struct kv_cache {
    struct kernels *kernels;
    const struct kv_cache *parent;
    int capacity, rows;
    int width;    /* kv_heads * head_dim */
    act *memory;  /* [layers][keys, values][capacity, width] */
};

struct decoder_workspace {
    struct kernels *kernels;
    int rows, query_rows;
    act *x, *h, *q, *k, *v, *gate, *up;
    param *cosines, *sines; /* [rows, head_dim/2] */
};

/* ---- weights ---- */

static int open_linear(const struct decoder *d, struct linear **out, const struct checkpoint *checkpoint,
                       const char *name, int out_features, int in_features, struct error *error)
{
    struct linear_source source;
    int code = checkpoint_linear(checkpoint, name, out_features, in_features, &source, error);
    if (!code && (code = d->kernels->linear_open(d->kernels, out, &source, error)))
        error_prefix(error, "%s", name);
    return code;
}

static int open_expert(struct decoder *d, const struct checkpoint *checkpoint, int layer, int e, struct error *error)
{
    struct expert *expert = &d->layers[layer][e];
    const int heads_width = d->heads * d->head_dim, kv_width = d->kv_heads * d->head_dim;
    const struct {
        struct linear **out;
        enum linear_place place;
        int index, out_features, in_features;
    } parts[] = {
        {&expert->q, PLACE_QKV, 0, heads_width, d->hidden},
        {&expert->k, PLACE_QKV, 1, kv_width, d->hidden},
        {&expert->v, PLACE_QKV, 2, kv_width, d->hidden},
        {&expert->o, PLACE_O, 0, d->hidden, heads_width},
        {&expert->gate, PLACE_GATE_UP, 0, d->intermediate, d->hidden},
        {&expert->up, PLACE_GATE_UP, 1, d->intermediate, d->hidden},
        {&expert->down, PLACE_DOWN, 0, d->hidden, d->intermediate},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char name[LINEAR_NAME_BYTES];
        linear_input_name(name, parts[i].place, layer, e == GEN, parts[i].index);
        int code = open_linear(d, parts[i].out, checkpoint, name, parts[i].out_features, parts[i].in_features, error);
        if (code)
            return code;
    }
    return 0;
}

/* Read one norm weight into `host` at *used and hand out where it will lie on the device. */
static int take_vector(const struct decoder *d, const struct checkpoint *checkpoint, const char *name, int n,
                       float *host, size_t *used, param **out, struct error *error)
{
    *out = param_at(d->vectors, *used);
    int code = checkpoint_vector(checkpoint, name, n, host + *used, error);
    *used += (size_t)n;
    return code;
}

static int read_vectors(struct decoder *d, const struct checkpoint *checkpoint, float *host, struct error *error)
{
    const struct lance_config *config = checkpoint_config(checkpoint);
    size_t used = 0;
    int code = 0;
    char name[128];
    for (int e = 0; e < d->experts; e++) {
        const char *s = expert_suffix[e];
        for (int layer = 0; layer < d->layer_count; layer++) {
            struct expert *expert = &d->layers[layer][e];
            const struct {
                param **out;
                const char *format;
                int n;
            } parts[] = {
                {&expert->input_norm, "language_model.model.layers.%d.input_layernorm%s.weight", d->hidden},
                {&expert->post_attention_norm, "language_model.model.layers.%d.post_attention_layernorm%s.weight",
                 d->hidden},
                {&expert->q_norm, "language_model.model.layers.%d.self_attn.q_norm%s.weight", d->head_dim},
                {&expert->k_norm, "language_model.model.layers.%d.self_attn.k_norm%s.weight", d->head_dim},
            };
            const size_t count = config->lacks_head_norms ? 2 : sizeof parts / sizeof *parts;
            for (size_t i = 0; i < count; i++) {
                snprintf(name, sizeof name, parts[i].format, layer, s);
                if ((code = take_vector(d, checkpoint, name, parts[i].n, host, &used, parts[i].out, error)))
                    return code;
            }
        }
        snprintf(name, sizeof name, "language_model.model.norm%s.weight", s);
        if ((code = take_vector(d, checkpoint, name, d->hidden, host, &used, &d->final_norm[e], error)))
            return code;
    }
    d->kernels->param_upload(d->kernels, d->vectors, host, used);
    return 0;
}

static int open_vectors(struct decoder *d, const struct checkpoint *checkpoint, struct error *error)
{
    size_t n =
        (size_t)d->experts * ((size_t)d->layer_count * 2 * (size_t)(d->hidden + d->head_dim) + (size_t)d->hidden);
    float *host = malloc(n * sizeof *host);
    if (!host)
        return error_set(error, ERROR_NO_MEMORY, "decoder: no memory for %zu norm weights", n);
    int code = d->kernels->memory_alloc(d->kernels, (void **)&d->vectors, n * sizeof *host, error);
    if (!code)
        code = read_vectors(d, checkpoint, host, error);
    free(host);
    return code;
}

/* Frequencies are float32 in the official code, even where they are not rounded further. */
static int make_frequencies(struct decoder *d, const struct lance_config *config, bool round_tables,
                            struct error *error)
{
    const int pairs = d->head_dim / 2;
    d->inverse_frequency = malloc((size_t)pairs * sizeof *d->inverse_frequency);
    d->axis = malloc((size_t)pairs * sizeof *d->axis);
    if (!d->inverse_frequency || !d->axis)
        return error_set(error, ERROR_NO_MEMORY, "decoder: no memory for rotary frequencies");
    for (int i = 0; i < pairs; i++) {
        float frequency = (float)pow(config->rope_theta, -2.0 * i / d->head_dim);
        if (round_tables)
            bf16_round(&frequency, 1);
        d->inverse_frequency[i] = frequency;
        d->axis[i] = i < config->mrope_section[0] ? 0 : i < config->mrope_section[0] + config->mrope_section[1] ? 1 : 2;
    }
    return 0;
}

/* The embedding is open. */
static int open_head(struct decoder *d, const struct checkpoint *checkpoint, bool in_bytes, struct error *error)
{
    const bool is_tied = checkpoint_config(checkpoint)->has_tied_head;
    const char *const name = is_tied ? embedding_name : "language_model.lm_head";
    struct linear_source source;
    int code = checkpoint_linear(checkpoint, name, d->vocab, d->hidden, &source, error);
    if (code)
        return code;
    in_bytes = in_bytes && !weight_is_quantised(source.format);
    if (is_tied && !in_bytes) {
        d->lm_head = d->embedding;
        return 0;
    }
    if (in_bytes && !(code = byte_matrix_open(&d->head, &source, error)))
        source = d->head.source;
    if (!code)
        code = d->kernels->linear_open(d->kernels, &d->lm_head, &source, error);
    if (code)
        error_prefix(error, "%s", name);
    return code;
}

static int open_parts(struct decoder *d, const struct checkpoint *checkpoint, const struct decoder_options *options,
                      struct error *error)
{
    d->layers = calloc((size_t)d->layer_count, sizeof *d->layers);
    if (!d->layers)
        return error_set(error, ERROR_NO_MEMORY, "decoder: no memory for %d layers", d->layer_count);
    int code = make_frequencies(d, checkpoint_config(checkpoint), options->round_tables, error);
    if (!code)
        code = open_vectors(d, checkpoint, error);
    for (int layer = 0; !code && layer < d->layer_count; layer++)
        for (int e = 0; !code && e < d->experts; e++)
            code = open_expert(d, checkpoint, layer, e, error);
    if (!code)
        code = open_linear(d, &d->embedding, checkpoint, embedding_name, d->vocab, d->hidden, error);
    return code ? code : open_head(d, checkpoint, options->byte_head, error);
}

int decoder_open(struct decoder **out, struct kernels *kernels, const struct checkpoint *checkpoint,
                 const struct decoder_options *options, struct error *error)
{
    *out = NULL;
    const struct lance_config *config = checkpoint_config(checkpoint);
    struct decoder *d = calloc(1, sizeof *d);
    if (!d)
        return error_set(error, ERROR_NO_MEMORY, "decoder: no memory");
    *d = (struct decoder){
        .kernels = kernels,
        .hidden = config->hidden_size,
        .layer_count = config->layers,
        .heads = config->heads,
        .kv_heads = config->kv_heads,
        .head_dim = config->head_dim,
        .intermediate = config->intermediate_size,
        .vocab = config->vocab_size,
        .experts = checkpoint_can_generate(checkpoint) ? 2 : 1,
        .eps = config->rms_norm_eps,
    };
    int code = open_parts(d, checkpoint, options, error);
    if (code)
        decoder_close(d);
    else
        *out = d;
    return code;
}

void decoder_close(struct decoder *d)
{
    if (!d)
        return;
    struct kernels *k = d->kernels;
    for (int layer = 0; d->layers && layer < d->layer_count; layer++)
        for (int e = 0; e < EXPERTS; e++) {
            struct expert *x = &d->layers[layer][e];
            struct linear *all[] = {x->q, x->k, x->v, x->o, x->gate, x->up, x->down};
            for (size_t i = 0; i < sizeof all / sizeof *all; i++)
                if (all[i])
                    k->linear_close(k, all[i]);
        }
    if (d->lm_head && d->lm_head != d->embedding)
        k->linear_close(k, d->lm_head);
    byte_matrix_close(&d->head);
    if (d->embedding)
        k->linear_close(k, d->embedding);
    k->memory_free(k, d->vectors);
    free(d->layers);
    free(d->inverse_frequency);
    free(d->axis);
    free(d->watched);
    free(d);
}

int decoder_hidden_size(const struct decoder *d) { return d->hidden; }
uint64_t decoder_byte_head_bytes(const struct decoder *d)
{
    return d->head.bytes;
}

int decoder_vocab_size(const struct decoder *d) { return d->vocab; }

void decoder_watch_until(struct decoder *d, const atomic_bool *cancelled)
{
    d->cancelled = cancelled;
}

int decoder_watch(struct decoder *d, linear_input_watch *watch, void *context, struct error *error)
{
    const int heads_width = d->heads * d->head_dim,
              widest = heads_width > d->intermediate ? heads_width : d->intermediate;
    const size_t width = (size_t)(widest > d->hidden ? widest : d->hidden);
    d->watch = NULL;
    free(d->watched);
    d->watched = watch ? malloc(WATCHED_ROWS * width * sizeof *d->watched) : NULL;
    if (watch && !d->watched)
        return error_set(error, ERROR_NO_MEMORY, "decoder: no memory to watch inputs of %zu columns", width);
    d->watch = watch;
    d->watch_context = context;
    return 0;
}

/* ---- KV caches ---- */

uint64_t kv_cache_bytes(const struct decoder *d, int capacity)
{
    return (uint64_t)d->layer_count * 2 * (uint64_t)capacity * (uint64_t)(d->kv_heads * d->head_dim) *
           d->kernels->act_bytes;
}

int kv_cache_open(struct kv_cache **out, const struct decoder *d, const struct kv_cache *parent, int capacity,
                  struct error *error)
{
    *out = NULL;
    struct kv_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return error_set(error, ERROR_NO_MEMORY, "kv_cache: no memory");
    *cache = (struct kv_cache){
        .kernels = d->kernels, .parent = parent, .capacity = capacity, .width = d->kv_heads * d->head_dim};
    int code = d->kernels->memory_alloc(d->kernels, (void **)&cache->memory, kv_cache_bytes(d, capacity), error);
    if (code)
        kv_cache_close(cache);
    else
        *out = cache;
    return code;
}

void kv_cache_close(struct kv_cache *cache)
{
    if (!cache)
        return;
    cache->kernels->memory_free(cache->kernels, cache->memory);
    free(cache);
}

/* Keys (part 0) or values (part 1) of a layer, from `row` on. */
static act *cache_at(const struct kv_cache *cache, int layer, int part, int row)
{
    size_t matrix = (size_t)cache->capacity * (size_t)cache->width;
    return act_at(cache->kernels, cache->memory,
                  ((size_t)layer * 2 + (size_t)part) * matrix + (size_t)row * (size_t)cache->width);
}

size_t kv_cache_row_values(const struct decoder *d)
{
    return (size_t)d->layer_count * 2 * (size_t)(d->kv_heads * d->head_dim);
}

void kv_cache_save(const struct kv_cache *cache, const struct decoder *d, float *values)
{
    const size_t matrix = (size_t)cache->rows * (size_t)cache->width;
    for (int layer = 0; layer < d->layer_count && matrix > 0; layer++)
        for (int part = 0; part < 2; part++, values += matrix)
            d->kernels->download(d->kernels, values, cache_at(cache, layer, part, 0), matrix);
}

int kv_cache_restore(struct kv_cache *cache, const struct decoder *d, const float *values, int rows,
                     struct error *error)
{
    if (cache->rows > 0 || rows > cache->capacity)
        return error_set(error, ERROR_INTERNAL, "kv_cache: %d rows for a cache of %d that has %d", rows,
                         cache->capacity, cache->rows);
    const size_t matrix = (size_t)rows * (size_t)cache->width;
    for (int layer = 0; layer < d->layer_count; layer++)
        for (int part = 0; part < 2; part++, values += matrix)
            d->kernels->upload(d->kernels, cache_at(cache, layer, part, 0), values, matrix);
    cache->rows = rows;
    return 0;
}

/* ---- workspace ---- */

static int mlp_rows(int rows) { return rows < MLP_CHUNK_ROWS ? rows : MLP_CHUNK_ROWS; }

/* Rows that the MLP takes at a time, of so many: pieces of about the same size, for a small rest takes nearly as long
 * as a whole one. */
static int mlp_piece(int rows)
{
    const int pieces = (rows + MLP_CHUNK_ROWS - 1) / MLP_CHUNK_ROWS;
    const int even = (rows + pieces - 1) / pieces;
    return pieces == 1 ? rows : (even + MLP_PIECE_ROWS - 1) / MLP_PIECE_ROWS * MLP_PIECE_ROWS;
}

/* The workspace's buffers and their element counts, in one place for allocation and estimate. */
enum { WORKSPACE_ACTS = 7 };
static void workspace_sizes(const struct decoder *d, int rows, int query_rows, size_t elements[WORKSPACE_ACTS])
{
    size_t heads_width = (size_t)(d->heads * d->head_dim), kv_width = (size_t)(d->kv_heads * d->head_dim);
    size_t wide = (size_t)mlp_rows(rows) * (size_t)d->intermediate;
    /* H also holds attention's output. */
    size_t hidden = (size_t)d->hidden > heads_width ? (size_t)d->hidden : heads_width;
    const size_t sizes[WORKSPACE_ACTS] = {
        (size_t)rows * (size_t)d->hidden, (size_t)rows * hidden, (size_t)rows * heads_width,
        (size_t)query_rows * kv_width, (size_t)query_rows * kv_width, wide, wide,
    };
    memcpy(elements, sizes, sizeof sizes);
}

static size_t table_bytes(const struct decoder *d, int rows)
{
    return (size_t)rows * (size_t)(d->head_dim / 2) * sizeof(float);
}

uint64_t decoder_workspace_bytes(const struct decoder *d, int rows, int query_rows)
{
    size_t elements[WORKSPACE_ACTS];
    workspace_sizes(d, rows, query_rows, elements);
    uint64_t bytes = 2 * table_bytes(d, rows);
    for (int i = 0; i < WORKSPACE_ACTS; i++)
        bytes += elements[i] * d->kernels->act_bytes;
    return bytes;
}

int decoder_workspace_open(struct decoder_workspace **out, const struct decoder *d, int rows, int query_rows,
                           struct error *error)
{
    *out = NULL;
    struct kernels *k = d->kernels;
    struct decoder_workspace *w = calloc(1, sizeof *w);
    if (!w)
        return error_set(error, ERROR_NO_MEMORY, "decoder: no memory");
    *w = (struct decoder_workspace){.kernels = k, .rows = rows, .query_rows = query_rows};
    act **const buffers[WORKSPACE_ACTS] = {&w->x, &w->h, &w->q, &w->k, &w->v, &w->gate, &w->up};
    size_t elements[WORKSPACE_ACTS];
    workspace_sizes(d, rows, query_rows, elements);
    int code = k->memory_alloc(k, (void **)&w->cosines, table_bytes(d, rows), error);
    if (!code)
        code = k->memory_alloc(k, (void **)&w->sines, table_bytes(d, rows), error);
    for (int i = 0; !code && i < WORKSPACE_ACTS; i++)
        code = k->memory_alloc(k, (void **)buffers[i], elements[i] * k->act_bytes, error);
    if (code)
        decoder_workspace_close(w);
    else
        *out = w;
    return code;
}

void decoder_workspace_close(struct decoder_workspace *w)
{
    if (!w)
        return;
    void *const all[] = {w->x, w->h, w->q, w->k, w->v, w->gate, w->up, w->cosines, w->sines};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        w->kernels->memory_free(w->kernels, all[i]);
    free(w);
}

act *decoder_workspace_x(const struct decoder_workspace *w) { return w->x; }

int decoder_set_positions(const struct decoder *d, struct decoder_workspace *w, int first_row,
                          const int32_t *const positions[3], int rows, struct error *error)
{
    const size_t pairs = (size_t)(d->head_dim / 2), n = (size_t)rows * pairs;
    float *host = malloc(2 * n * sizeof *host);
    if (!host)
        return error_set(error, ERROR_NO_MEMORY, "decoder: no memory for rotary tables of %d tokens", rows);
    for (size_t row = 0; row < (size_t)rows; row++)
        for (size_t i = 0; i < pairs; i++) {
            double angle = d->inverse_frequency[i] * positions[d->axis[i]][row];
            host[row * pairs + i] = (float)cos(angle);
            host[n + row * pairs + i] = (float)sin(angle);
        }
    struct kernels *k = d->kernels;
    k->param_upload(k, param_at(w->cosines, (size_t)first_row * pairs), host, n);
    k->param_upload(k, param_at(w->sines, (size_t)first_row * pairs), host + n, n);
    free(host);
    return 0;
}

/* ---- one pass ---- */

/* A block's rows of one expert: [first, first + rows) of the block, and where their rotary tables begin. */
struct expert_rows {
    int expert, first, rows, table_row;
};

struct pass {
    const struct decoder *decoder;
    struct decoder_workspace *workspace;
    const struct decoder_block *block;
    struct expert_rows parts[EXPERTS];
    int part_count, rows;
};

static act *row_of(const struct decoder *d, act *base, int row, int width)
{
    return act_at(d->kernels, base, (size_t)row * (size_t)width);
}

/* Where the keys (part 0) or values (part 1) of the block, or of its sequence s, go: the cache itself when they are
 * kept. */
static act *block_keys(const struct pass *p, int layer, int part, int s)
{
    const struct decoder_block *b = p->block;
    if (b->store)
        return cache_at(b->caches[s], layer, part, b->caches[s]->rows - (b->stored_rows ? b->stored_rows[s] : p->rows));
    return part == 0 ? p->workspace->k : p->workspace->v;
}

static void add_segment(struct attention *a, const act *keys, const act *values, int rows, int stride)
{
    if (rows == 0)
        return;
    a->segment[a->segments].keys = keys;
    a->segment[a->segments].values = values;
    a->segment[a->segments].rows = rows;
    a->segment[a->segments].stride = stride;
    a->segments++;
}

/* The rows of a cache after those of its ancestors. */
static void add_cache(struct attention *a, const struct kv_cache *cache, int layer)
{
    if (cache->parent)
        add_cache(a, cache->parent, layer);
    add_segment(a, cache_at(cache, layer, 0, 0), cache_at(cache, layer, 1, 0), cache->rows, cache->width);
}

/* A problem of the block's rows [first, first + rows), over a cache and what comes before it. */
static struct attention attention_of(const struct pass *p, int layer, int first, int rows, const struct kv_cache *cache)
{
    const struct decoder *d = p->decoder;
    struct decoder_workspace *w = p->workspace;
    const int heads_width = d->heads * d->head_dim;
    struct attention a = {
        .q = row_of(d, w->q, first, heads_width),
        .q_rows = rows,
        .q_stride = heads_width,
        .heads = d->heads,
        .kv_heads = d->kv_heads,
        .head_dim = d->head_dim,
        .scale = 1.0f / sqrtf((float)d->head_dim),
        .causal = p->block->causal,
        .out = row_of(d, w->h, first, heads_width),
        .out_stride = heads_width,
    };
    add_cache(&a, cache, layer);
    return a;
}

/* Attention of every sequence's rows over its caches and its own rows of the block. */
static int attend(const struct pass *p, int layer, struct attention *problems)
{
    const struct decoder *d = p->decoder;
    const struct decoder_block *b = p->block;
    struct decoder_workspace *w = p->workspace;
    const int kv_width = d->kv_heads * d->head_dim;
    int count = 0;
    for (int s = 0, first = 0; b->store && s < b->sequences; s++) { /* the block's own rows are in the caches */
        const int rows = b->stored_rows ? b->stored_rows[s] : p->rows;
        problems[count++] = attention_of(p, layer, first, rows, b->caches[s]);
        first += rows;
    }
    for (int s = 0; !b->store && s < b->sequences; s++)
        for (int i = 0; i < p->part_count; i++) {
            int rows = p->parts[i].rows / b->sequences, first = p->parts[i].first + s * rows;
            struct attention *a = &problems[count++];
            *a = attention_of(p, layer, first, rows, b->caches[s]);
            for (int j = 0; j < p->part_count; j++) {
                int own = p->parts[j].rows / b->sequences, at = p->parts[j].first + s * own;
                add_segment(a, row_of(d, w->k, at, kv_width), row_of(d, w->v, at, kv_width), own, kv_width);
            }
        }
    return count;
}

/* Show rows of an input to who watches. */
static void show(const struct pass *p, enum linear_place place, int layer, int expert, act *x, int rows, int width)
{
    const struct decoder *d = p->decoder;
    struct linear_input input = {.place = place, .layer = layer, .generation = expert == GEN, .width = width,
                                 .time = p->block->gen_rows > 0 ? p->block->time : -1, .values = d->watched};
    for (int done = 0; d->watch && done < rows; done += input.rows) {
        input.rows = rows - done < WATCHED_ROWS ? rows - done : WATCHED_ROWS;
        d->kernels->download(d->kernels, d->watched, row_of(d, x, done, width), (size_t)input.rows * (size_t)width);
        if (d->cancelled && atomic_load(d->cancelled)) /* then operators have left work undone */
            return;
        d->watch(d->watch_context, &input);
    }
}

/* The rows of a part of the block, or of a piece of it, as the matrices take them: normed. */
static struct normed_rows normed_rows(const struct pass *p, int first, int rows, const param *weight)
{
    const struct decoder *d = p->decoder;
    return (struct normed_rows){.x = row_of(d, p->workspace->x, first, d->hidden), .rows = rows, .weight = weight,
                                .eps = d->eps, .h = row_of(d, p->workspace->h, first, d->hidden)};
}

/* Show normed rows to who watches; a product need not leave them anywhere. */
static void show_normed(const struct pass *p, enum linear_place place, int layer, int expert,
                        const struct normed_rows *x)
{
    const struct decoder *d = p->decoder;
    if (!d->watch)
        return;
    d->kernels->rms_norm(d->kernels, x->x, x->rows, d->hidden, x->weight, x->eps, x->h);
    show(p, place, layer, expert, x->h, x->rows, d->hidden);
}

/* Heads that are still to be normed and turned, as many at a time as there is room for. */
struct turning {
    struct head_part part[HEAD_PARTS];
    int count;
};

static void turn(const struct pass *p, struct turning *t)
{
    if (t->count > 0)
        p->decoder->kernels->head_norm_rope(p->decoder->kernels, t->part, t->count, p->decoder->head_dim,
                                            p->decoder->eps);
    t->count = 0;
}

static void turn_later(const struct pass *p, struct turning *t, act *x, int rows, int heads, const param *norm,
                       int table_row)
{
    const size_t at = (size_t)table_row * (size_t)(p->decoder->head_dim / 2);
    if (t->count == HEAD_PARTS)
        turn(p, t);
    t->part[t->count++] = (struct head_part){.x = x, .rows = rows, .stride = heads * p->decoder->head_dim,
                                             .heads = heads, .weight = norm,
                                             .cosines = param_at(p->workspace->cosines, at),
                                             .sines = param_at(p->workspace->sines, at)};
}

/* Keys and values of stored sequences, whose rows lie one after the other in h: each goes into its own cache. */
static void keys_of_sequences(const struct pass *p, int layer, const struct expert *e, struct turning *turning)
{
    const struct decoder *d = p->decoder;
    const struct decoder_block *b = p->block;
    const struct linear *const to_both[] = {e->k, e->v};
    for (int s = 0, first = 0; s < b->sequences; first += b->stored_rows[s++]) {
        act *const both[] = {block_keys(p, layer, 0, s), block_keys(p, layer, 1, s)};
        const struct normed_rows x = {.x = row_of(d, p->workspace->h, first, d->hidden), .rows = b->stored_rows[s]};
        d->kernels->linear_group(d->kernels, to_both, 2, &x, both);
        turn_later(p, turning, both[0], b->stored_rows[s], d->kv_heads, e->k_norm, first);
    }
}

/* Whether all that this layer is run for is its keys and values. */
static bool only_keys(const struct pass *p, int layer)
{
    return p->block->only_stores && layer == p->decoder->layer_count - 1 && !p->block->trace && !p->decoder->watch;
}

/* Queries, keys and values of one expert's rows. */
static void project(const struct pass *p, int layer, const struct expert_rows *r, struct turning *turning)
{
    const struct decoder *d = p->decoder;
    struct decoder_workspace *w = p->workspace;
    struct kernels *k = d->kernels;
    const struct expert *e = &d->layers[layer][r->expert];
    const int kv_width = d->kv_heads * d->head_dim;
    const bool with_queries = !only_keys(p, layer);
    act *q = row_of(d, w->q, r->first, d->heads * d->head_dim);
    const struct normed_rows x = normed_rows(p, r->first, r->rows, e->input_norm);
    show_normed(p, PLACE_QKV, layer, r->expert, &x);
    if (p->block->stored_rows) {
        k->rms_norm(k, x.x, r->rows, d->hidden, x.weight, x.eps, x.h);
        if (with_queries)
            k->linear(k, e->q, x.h, r->rows, q, false);
        keys_of_sequences(p, layer, e, turning);
    } else {
        act *key = row_of(d, block_keys(p, layer, 0, 0), r->first, kv_width);
        const struct linear *const to_all[] = {e->q, e->k, e->v};
        act *const all[] = {q, key, row_of(d, block_keys(p, layer, 1, 0), r->first, kv_width)};
        const int first = with_queries ? 0 : 1;
        k->linear_group(k, to_all + first, 3 - first, &x, all + first);
        turn_later(p, turning, key, r->rows, d->kv_heads, e->k_norm, r->table_row);
    }
    if (with_queries)
        turn_later(p, turning, q, r->rows, d->heads, e->q_norm, r->table_row);
}

static void attention_half(const struct pass *p, int layer, struct attention *problems)
{
    const struct decoder *d = p->decoder;
    struct decoder_workspace *w = p->workspace;
    struct kernels *k = d->kernels;
    const int heads_width = d->heads * d->head_dim;
    struct turning turning = {.count = 0};
    for (int i = 0; i < p->part_count; i++)
        project(p, layer, &p->parts[i], &turning);
    turn(p, &turning);
    if (only_keys(p, layer))
        return;
    k->attention(k, problems, attend(p, layer, problems));
    for (int i = 0; i < p->part_count; i++) {
        const struct expert_rows *r = &p->parts[i];
        act *h = row_of(d, w->h, r->first, heads_width);
        show(p, PLACE_O, layer, r->expert, h, r->rows, heads_width);
        k->linear(k, d->layers[layer][r->expert].o, h, r->rows, row_of(d, w->x, r->first, d->hidden), true);
    }
}

static void mlp_half(const struct pass *p, int layer)
{
    const struct decoder *d = p->decoder;
    struct decoder_workspace *w = p->workspace;
    struct kernels *k = d->kernels;
    for (int i = 0; i < p->part_count; i++) {
        const struct expert_rows *r = &p->parts[i];
        const struct expert *e = &d->layers[layer][r->expert];
        const int piece = mlp_piece(r->rows);
        for (int done = 0; done < r->rows; done += piece) {
            const int rows = r->rows - done < piece ? r->rows - done : piece;
            const struct normed_rows x = normed_rows(p, r->first + done, rows, e->post_attention_norm);
            show_normed(p, PLACE_GATE_UP, layer, r->expert, &x);
            k->linear_swiglu(k, e->gate, e->up, &x, w->gate, w->up);
            show(p, PLACE_DOWN, layer, r->expert, w->gate, rows, d->intermediate);
            k->linear(k, e->down, w->gate, rows, row_of(d, w->x, r->first + done, d->hidden), true);
        }
    }
}

/* Some layers of a pass; changes nothing but device memory, so that it may be called again. */
struct layers {
    const struct pass *pass;
    int first, end;
};

static void run_layers(void *context)
{
    const struct layers *layers = context;
    const struct pass *p = layers->pass;
    const struct decoder *d = p->decoder;
    const struct decoder_trace *trace = p->block->trace;
    struct attention problems[EXPERTS * DECODER_MAX_SEQUENCES];
    for (int layer = layers->first; layer < layers->end; layer++) {
        attention_half(p, layer, problems);
        if (!only_keys(p, layer))
            mlp_half(p, layer);
        if (layer == 0 && trace && trace->first_layer)
            d->kernels->download(d->kernels, trace->first_layer, p->workspace->x, (size_t)p->rows * (size_t)d->hidden);
    }
}

void decoder_run(const struct decoder *d, struct decoder_workspace *w, const struct decoder_block *block)
{
    struct kernels *k = d->kernels;
    const int gen = block->sequences * block->gen_rows;
    int und = block->stored_rows ? 0 : block->sequences * block->und_rows;
    for (int s = 0; block->stored_rows && s < block->sequences; s++)
        und += block->stored_rows[s];
    struct pass p = {.decoder = d, .workspace = w, .block = block, .rows = und + gen};
    if (und > 0)
        p.parts[p.part_count++] = (struct expert_rows){.expert = UND, .first = 0, .rows = und, .table_row = 0};
    if (gen > 0)
        p.parts[p.part_count++] =
            (struct expert_rows){.expert = GEN, .first = und, .rows = gen, .table_row = block->gen_position_row};
    for (int s = 0; block->store && s < block->sequences; s++)
        block->caches[s]->rows += block->stored_rows ? block->stored_rows[s] : p.rows;
    const struct kv_cache *grows = block->graph && block->store && block->sequences == 1 ? block->caches[0] : NULL;
    if (grows)
        k->graph_grows(k, grows->memory, kv_cache_bytes(d, grows->capacity), grows->rows - p.rows);
    for (int first = 0; first < d->layer_count; first += LAYERS_PER_GRAPH) {
        int end = first + LAYERS_PER_GRAPH;
        struct layers layers = {&p, first, end < d->layer_count ? end : d->layer_count};
        if (block->graph && !block->trace && !d->watch)
            k->graph_run(k, block->graph, first / LAYERS_PER_GRAPH, run_layers, &layers);
        else
            run_layers(&layers);
    }
    if (grows)
        k->graph_grows(k, NULL, 0, 0);
    for (int i = 0; i < p.part_count && !only_keys(&p, d->layer_count - 1); i++) {
        act *x = row_of(d, w->x, p.parts[i].first, d->hidden);
        k->rms_norm(k, x, p.parts[i].rows, d->hidden, d->final_norm[p.parts[i].expert], d->eps, x);
    }
    if (block->trace && block->trace->last)
        k->download(k, block->trace->last, w->x, (size_t)p.rows * (size_t)d->hidden);
}

int decoder_embed(const struct decoder *d, const int32_t *ids, int count, act *y, struct error *error)
{
    for (int i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= d->vocab)
            return error_set(error, ERROR_INTERNAL, "decoder: token id %d is outside the embedding table of %d rows",
                             (int)ids[i], d->vocab);
    d->kernels->embed(d->kernels, d->embedding, ids, count, y);
    return 0;
}

void decoder_logits(const struct decoder *d, const act *hidden, int rows, act *logits)
{
    d->kernels->linear(d->kernels, d->lm_head, hidden, rows, logits, false);
}
