/* attention_bf16.c: the tasks of attention.c with products in bf16; see bf16.h.
 *
 * Queries, keys, values and the softmax's weights are rounded to bf16; scores, softmax and sums are
 * float32. Queries and weights are the rows of the products as they lie in memory, keys and values are
 * packed into panels, a block at a time.
 */
#include "kernels/cpu/attention_bf16.h"

#include <string.h>

enum {
    ROW_TILE = 2 * BF16_TILE,            /* rows whose scores are held at a time */
    ROW_PADDING = BF16_STEP,             /* behind a row: not a power of two, or rows would
                                          * share the lines of a cache */
    WEIGHTS_ROW = KEY_BLOCK + ROW_PADDING
};

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* Scratch of one task, in floats from its start; bf16 numbers are half as many floats. */
struct layout {
    size_t queries, weights, keys, values, output, scores, maximum, sum, end;
    size_t query_row, key_panel, value_panel; /* in bf16 numbers */
};

static struct layout lay_out(const struct attention *a, int rows)
{
    const size_t n = ((size_t)rows + ROW_TILE - 1) / ROW_TILE * ROW_TILE;
    const size_t panels = ((size_t)a->head_dim + BF16_TILE - 1) / BF16_TILE;
    struct layout l;
    l.query_row = bf16_steps(a->head_dim) * BF16_STEP + ROW_PADDING;
    l.key_panel = bf16_steps(a->head_dim) * BF16_PANEL_STEP;
    l.value_panel = KEY_BLOCK / BF16_STEP * BF16_PANEL_STEP;
    l.queries = 0;
    l.weights = l.queries + n * l.query_row / 2;
    l.keys = l.weights + ROW_TILE * WEIGHTS_ROW / 2;
    l.values = l.keys + KEY_BLOCK / BF16_TILE * l.key_panel / 2;
    l.output = l.values + panels * l.value_panel / 2;
    l.scores = l.output + n * panels * BF16_TILE;
    l.maximum = l.scores + (a->head_dim > ROW_TILE * KEY_BLOCK ? (size_t)a->head_dim : ROW_TILE * KEY_BLOCK);
    l.sum = l.maximum + n;
    l.end = l.sum + n;
    return l;
}

struct task {
    const struct bf16_loops *loops;
    struct attention_rows rows;
    struct layout l;
    bf16 *queries, *weights, *keys, *values;
    float *scores;
};

static void round_queries(struct task *t, int head)
{
    const struct attention_rows *r = &t->rows;
    const struct attention *a = r->problem;
    float *scaled = t->scores; /* room for one row */
    memset(t->queries, 0,
           ((size_t)r->count + ROW_TILE - 1) / ROW_TILE * ROW_TILE * t->l.query_row * sizeof *t->queries);
    for (int i = 0; i < r->count; i++) {
        const float *query = floats(a->q) + (size_t)(r->first_query + i / r->group) * (size_t)a->q_stride +
                             (size_t)(head + i % r->group) * r->dim;
        memcpy(scaled, query, r->dim * sizeof *scaled);
        r->micro->scale(scaled, r->dim, a->scale);
        t->loops->round(scaled, r->dim, r->dim, t->queries + (size_t)i * t->l.query_row);
    }
}

static void pack_keys(struct task *t, int head, int first, int count)
{
    const float *key[KEY_BLOCK + BF16_TILE] = {NULL}, *value[KEY_BLOCK];
    attention_find_rows(t->rows.problem, head, first, count, key, value);
    for (int i = 0; i < count; i += BF16_TILE)
        t->loops->pack_columns(key + i, t->rows.dim, t->keys + (size_t)(i / BF16_TILE) * t->l.key_panel);
    t->loops->pack_depth(value, count, (int)t->rows.dim, t->values, t->l.value_panel);
}

/* Up to ROW_TILE rows against the block of keys that is packed. */
static void attend_rows(struct task *t, int row, int first, int seen)
{
    struct attention_rows *r = &t->rows;
    const int rows = least(ROW_TILE, r->count - row), steps = (int)bf16_steps(seen),
              row_tiles = rows > BF16_TILE ? 2 : 1;
    const bf16 *query = t->queries + (size_t)row * t->l.query_row, *weights = t->weights;
    struct bf16_product product = {.rows = &query,
                                   .row_distance = t->l.query_row,
                                   .segments = 1,
                                   .steps = bf16_steps((int)r->dim),
                                   .panel_distance = t->l.key_panel,
                                   .row_tiles = row_tiles,
                                   .c_row = KEY_BLOCK};
    unsigned saved;
    t->loops->begin(&saved);
    for (int k = 0; k < seen; k += 2 * BF16_TILE) {
        product.panels = t->keys + (size_t)(k / BF16_TILE) * t->l.key_panel;
        product.column_tiles = seen - k > BF16_TILE ? 2 : 1;
        product.c = t->scores + k;
        t->loops->multiply(&product);
    }
    t->loops->end(saved);

    attention_soften(r, row, rows, t->scores, first, steps * BF16_STEP, r->keys);
    for (int i = 0; i < rows; i++)
        t->loops->round(t->scores + i * KEY_BLOCK, (size_t)(steps * BF16_STEP), (size_t)(steps * BF16_STEP),
                        t->weights + i * WEIGHTS_ROW);
    product = (struct bf16_product){.rows = &weights,
                                    .row_distance = WEIGHTS_ROW,
                                    .segments = 1,
                                    .steps = (size_t)steps,
                                    .panel_distance = t->l.value_panel,
                                    .row_tiles = row_tiles,
                                    .c_row = r->wide,
                                    .accumulate = true};
    t->loops->begin(&saved);
    for (size_t d = 0; d < r->wide; d += 2 * BF16_TILE) {
        product.panels = t->values + d / BF16_TILE * t->l.value_panel;
        product.column_tiles = r->wide - d > BF16_TILE ? 2 : 1;
        product.c = r->output + (size_t)row * r->wide + d;
        t->loops->multiply(&product);
    }
    t->loops->end(saved);
}

size_t attention_bf16_floats(const struct attention *a, int rows)
{
    return lay_out(a, rows).end;
}

void attention_bf16_task(void *context, int index, int thread)
{
    const struct attention_work *work = context;
    float *scratch = cpu_scratch(work->cpu, thread);
    int kv_head;
    struct task t = {.loops = work->cpu->bf16, .rows = attention_rows_of(work, index, &kv_head)};
    struct attention_rows *r = &t.rows;
    t.l = lay_out(r->problem, r->count);
    t.queries = (bf16 *)(void *)(scratch + t.l.queries);
    t.weights = (bf16 *)(void *)(scratch + t.l.weights);
    t.keys = (bf16 *)(void *)(scratch + t.l.keys);
    t.values = (bf16 *)(void *)(scratch + t.l.values);
    t.scores = scratch + t.l.scores;
    r->output = scratch + t.l.output;
    r->maximum = scratch + t.l.maximum;
    r->sum = scratch + t.l.sum;
    round_queries(&t, kv_head * r->group);
    attention_clear(r);
    memset(t.weights, 0, ROW_TILE * WEIGHTS_ROW * sizeof *t.weights); /* rows that there are not */

    const int last = attention_visible(r, r->count - 1, r->keys); /* no row of the task sees more */
    for (int first = 0; first < last; first += KEY_BLOCK) {
        const int count = least(KEY_BLOCK, r->keys - first);
        pack_keys(&t, kv_head, first, count);
        for (int row = 0; row < r->count; row += ROW_TILE) {
            const int lowest = least(row + ROW_TILE, r->count) - 1; /* the last row sees the most */
            const int seen = least(attention_visible(r, lowest, r->keys) - first, count);
            if (seen > 0)
                attend_rows(&t, row, first, seen);
        }
    }
    attention_finish(r, kv_head * r->group);
}
