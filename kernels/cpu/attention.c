/* attention.c: softmax(q k^T) v without ever holding the scores of more than one block.
 *
 * Keys are taken in blocks of KEY_BLOCK; each row keeps a running maximum and sum, and
 * its output is rescaled when the maximum rises (the online softmax of Milakov and
 * Gimelshein 2018, blocked as in FlashAttention, Dao et al. 2022). A task is a group of
 * consecutive queries of all the heads that share one key head, so that a packed block
 * of keys and values serves all of them. Where a key head has several tasks, its blocks are
 * packed once for all, if they are not too large. A row's arithmetic depends on the keys alone,
 * not on how the queries were cut. Where products run in bf16, attention_bf16.c takes the tasks.
 */
#include <string.h>

#include "kernels/cpu/attention_bf16.h"
#include "kernels/cpu/operators.h"

enum {
    ROW_TILE = 48,             /* rows whose scores are held at a time; a multiple of every tile_rows */
    TASK_FLOATS = 128 * 1024,  /* packed queries of a task, at most, */
    TASK_ROWS_MAX = 768,       /* and their rows */
    TASKS_PER_THREAD = 4,
    PACKED_FLOATS = 16 << 20,  /* of keys and values that are packed for several tasks, at most */
};

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* Scratch of one task, in floats from its start. */
struct layout {
    size_t queries, output, keys, values, scores, maximum, sum, end;
};

static struct layout lay_out(const struct attention *a, int rows)
{
    size_t dim = (size_t)a->head_dim, wide = attention_wide(a), n = ((size_t)rows + 15) / 16 * 16;
    struct layout l;
    l.queries = 0;
    l.output = l.queries + n * dim + CACHE_LINE;
    l.keys = l.output + n * wide;
    l.values = l.keys + KEY_BLOCK * dim;
    l.scores = l.values + KEY_BLOCK * wide;
    l.maximum = l.scores + ROW_TILE * KEY_BLOCK;
    l.sum = l.maximum + n;
    l.end = l.sum + n;
    return l;
}

/* Panels of keys, [16 keys as columns][head_dim], and of values, [16 dimensions as columns][keys]. */
static void pack_keys(const struct micro *micro, const struct attention *a, int head, int first, int count,
                      float *keys, float *values)
{
    const float *key[KEY_BLOCK + TILE_COLUMNS] = {NULL}, *value[KEY_BLOCK];
    attention_find_rows(a, head, first, count, key, value);
    for (int i = 0; i < count; i += TILE_COLUMNS)
        micro->pack(key + i, TILE_COLUMNS, (size_t)a->head_dim, keys + (size_t)i * (size_t)a->head_dim);
    for (int d = 0; d < a->head_dim; d += TILE_COLUMNS) {
        int columns = least(TILE_COLUMNS, a->head_dim - d);
        float *panel = values + (size_t)d * (size_t)count;
        for (int i = 0; i < count; i++, panel += TILE_COLUMNS) {
            if (columns == TILE_COLUMNS) { /* a constant size: no call */
                memcpy(panel, value[i] + d, TILE_COLUMNS * sizeof *panel);
            } else {
                memcpy(panel, value[i] + d, (size_t)columns * sizeof *panel);
                memset(panel + columns, 0, (size_t)(TILE_COLUMNS - columns) * sizeof *panel);
            }
        }
    }
}

/* Panels that the micro-kernel takes together where `columns` are left. */
static int panels_at_once(const struct micro *micro, int columns)
{
    return columns >= micro->tile_panels * TILE_COLUMNS ? micro->tile_panels : 1;
}

/* All rows of the task against one packed block of keys. */
static void attend(struct attention_rows *r, const float *keys, const float *values, float *scores, int first,
                   int count, int all_keys)
{
    const struct micro *micro = r->micro;
    for (int row = 0; row < r->count; row += ROW_TILE) {
        int rows = least(ROW_TILE, r->count - row);
        /* The last row sees the most. */
        int seen = least(attention_visible(r, row + rows - 1, all_keys) - first, count);
        if (seen <= 0)
            continue;
        for (int k = 0, panels; k < seen; k += panels * TILE_COLUMNS) {
            panels = panels_at_once(micro, seen - k);
            /* Wide heads: a piece of the panel that the L1 cache holds. */
            for (size_t d = 0; d < r->dim; d += DEPTH_BLOCK)
                for (int i = 0; i < rows; i += micro->tile_rows) {
                    int height = least(micro->tile_rows, rows - i);
                    micro->tile(height, panels, r->dim - d < DEPTH_BLOCK ? r->dim - d : DEPTH_BLOCK,
                                r->packed + (size_t)(row + i) * r->dim + d * (size_t)height, 1, (size_t)height,
                                keys + (size_t)k * r->dim + d * TILE_COLUMNS, r->dim * TILE_COLUMNS,
                                scores + (size_t)i * KEY_BLOCK + k, KEY_BLOCK, d > 0);
                }
        }
        attention_soften(r, row, rows, scores, first, seen, all_keys);
        for (int d = 0, panels; d < (int)r->wide; d += panels * TILE_COLUMNS) {
            panels = panels_at_once(micro, (int)r->wide - d);
            for (int i = 0; i < rows; i += micro->tile_rows)
                micro->tile(least(micro->tile_rows, rows - i), panels, (size_t)seen, scores + (size_t)i * KEY_BLOCK,
                            KEY_BLOCK, 1, values + (size_t)d * (size_t)count, (size_t)count * TILE_COLUMNS,
                            r->output + (size_t)(row + i) * r->wide + d, r->wide, true);
        }
    }
}

static void pack_queries(struct attention_rows *r, int head)
{
    const struct attention *a = r->problem;
    for (int row = 0; row < r->count; row += r->micro->tile_rows) {
        int height = least(r->micro->tile_rows, r->count - row);
        const float *source[TILE_ROWS_MAX];
        for (int i = 0; i < height; i++) {
            int query = r->first_query + (row + i) / r->group;
            source[i] = floats(a->q) + (size_t)query * (size_t)a->q_stride +
                        (size_t)(head + (row + i) % r->group) * r->dim;
        }
        r->micro->pack(source, height, r->dim, r->packed + (size_t)row * r->dim);
    }
    r->micro->scale(r->packed, (size_t)r->count * r->dim, a->scale);
}

/* A block of keys and values for all tasks of its key head. */
static void pack_task(void *context, int index, int thread)
{
    const struct attention_work *work = context;
    const struct attention *a = work->cuts->problem;
    const int keys = attention_keys(a), blocks = attention_key_blocks(a), first = index % blocks * KEY_BLOCK;
    float *to = work->cuts->packed + (size_t)index * attention_block_floats(a);
    (void)thread;
    pack_keys(work->cpu->micro, a, index / blocks, first, least(KEY_BLOCK, keys - first), to,
              to + KEY_BLOCK * (size_t)a->head_dim);
}

/* Places in `memory` for the packed keys and values of those that gain by it, as far as PACKED_FLOATS go. Returns the
 * floats in all; memory NULL: nothing but that. */
static size_t share_keys(struct attention_cut *cuts, int count, float *memory)
{
    size_t taken = 0;
    for (int i = 0; i < count; i++) {
        const size_t more = (size_t)cuts[i].problem->kv_heads * attention_head_floats(cuts[i].problem);
        const bool is_shared = cuts[i].blocks > 1 && more <= PACKED_FLOATS - taken;
        cuts[i].packed = is_shared && memory ? memory + taken : NULL;
        taken += is_shared ? more : 0;
    }
    return taken;
}

static void pack_shared(struct cpu *cpu, const struct attention_cut *cuts, int count)
{
    for (int i = 0; i < count; i++) {
        const struct attention *a = cuts[i].problem;
        struct attention_work work = {.cpu = cpu, .cuts = &cuts[i], .count = 1};
        if (cuts[i].packed)
            pool_run(cpu->pool, a->kv_heads * attention_key_blocks(a), pack_task, &work);
    }
}

static void task(void *context, int index, int thread)
{
    const struct attention_work *work = context;
    int kv_head;
    struct attention_rows rows = attention_rows_of(work, index, &kv_head);
    const struct attention *a = rows.problem;
    struct layout l = lay_out(a, rows.count);
    float *scratch = cpu_scratch(work->cpu, thread);
    rows.packed = scratch + l.queries;
    rows.output = scratch + l.output;
    rows.maximum = scratch + l.maximum;
    rows.sum = scratch + l.sum;
    pack_queries(&rows, kv_head * rows.group);
    attention_clear(&rows);

    int last = attention_visible(&rows, rows.count - 1, rows.keys); /* no row of the task sees more */
    for (int first = 0; first < last; first += KEY_BLOCK) {
        const int count = least(KEY_BLOCK, rows.keys - first);
        const float *keys = scratch + l.keys, *values = scratch + l.values;
        if (rows.packed_keys) {
            keys = rows.packed_keys + (size_t)(first / KEY_BLOCK) * attention_block_floats(a);
            values = keys + KEY_BLOCK * rows.dim;
        } else {
            pack_keys(rows.micro, a, kv_head, first, count, scratch + l.keys, scratch + l.values);
        }
        attend(&rows, keys, values, scratch + l.scores, first, count, rows.keys);
    }
    attention_finish(&rows, kv_head * rows.group);
}

/* Queries per task: enough rows to make packing the keys cheap, few enough for every thread to have work. */
static int queries_per_task(const struct attention *a, int tasks_wanted)
{
    int group = a->heads / a->kv_heads;
    int limit = least(TASK_ROWS_MAX, TASK_FLOATS / a->head_dim) / group;
    int even = (a->q_rows * a->kv_heads + tasks_wanted - 1) / tasks_wanted;
    int floor = ROW_TILE * 2 / group;
    int queries = even < floor ? floor : even;
    queries = least(queries, limit);
    queries = least(queries, a->q_rows);
    return queries < 1 ? 1 : queries;
}

static void cpu_attention(struct kernels *k, const struct attention *problems, int count)
{
    enum { AT_ONCE = 256 };
    struct cpu *cpu = cpu_of(k);
    struct attention_cut cuts[AT_ONCE];
    int threads = pool_threads(cpu->pool);
    for (int start = 0; start < count; start += AT_ONCE) {
        int taken = 0, tasks = 0, problems_now = least(AT_ONCE, count - start);
        size_t scratch = 0;
        for (int i = 0; i < problems_now; i++) {
            const struct attention *a = &problems[start + i];
            if (a->q_rows <= 0)
                continue;
            struct attention_cut *cut = &cuts[taken++];
            *cut = (struct attention_cut){.problem = a};
            cut->first_task = tasks;
            cut->queries = queries_per_task(a, (threads * TASKS_PER_THREAD + problems_now - 1) / problems_now);
            cut->blocks = (a->q_rows + cut->queries - 1) / cut->queries;
            tasks += cut->blocks * a->kv_heads;
            int rows = cut->queries * (a->heads / a->kv_heads);
            size_t end = cpu->bf16 ? attention_bf16_floats(a, rows) : lay_out(a, rows).end;
            scratch = end > scratch ? end : scratch;
        }
        if (!taken)
            continue;
        const int shared = cpu->bf16 ? 0 : taken;
        if (!cpu_reserve(cpu, scratch, share_keys(cuts, shared, NULL)))
            return;
        share_keys(cuts, shared, cpu->shared);
        pack_shared(cpu, cuts, shared);
        struct attention_work work = {.cpu = cpu, .cuts = cuts, .count = taken};
        pool_run(cpu->pool, tasks, cpu->bf16 ? attention_bf16_task : task, &work);
    }
}

void cpu_attention_fill(struct kernels *k)
{
    k->attention = cpu_attention;
}
