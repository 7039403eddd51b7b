/* attention_rows.h: what attention in float32 and in bf16 share: tasks, and the softmax of rows
 * whose keys come in blocks. */
#ifndef LANCE_CPU_ATTENTION_ROWS_H
#define LANCE_CPU_ATTENTION_ROWS_H

#include "kernels/cpu/cpu.h"

enum { KEY_BLOCK = 256 };

/* One problem cut into tasks. */
struct attention_cut {
    const struct attention *problem;
    int first_task;      /* number of this problem's first task */
    int queries;         /* queries of a task, each of them in `group` heads */
    int blocks;          /* tasks of one key head */
    float *packed;       /* keys and values of each key head, packed for all tasks; NULL: each packs for itself */
};

struct attention_work {
    struct cpu *cpu;
    const struct attention_cut *cuts;
    int count;
};

/* What the rows of one task have come to. Row i is head i % group of the group, query i / group, so that rows close to
 * each other see nearly the same keys. */
struct attention_rows {
    const struct micro *micro;
    const struct attention *problem;
    int count, group, first_query, keys, keys_before; /* keys_before: what a causal query 0 sees besides itself */
    const float *packed_keys; /* the key head's blocks of keys and values; NULL: they are yet to be packed */
    float *packed;  /* strips */
    float *output;  /* [count, wide] */
    float *maximum, *sum;
    size_t dim, wide;
};

/* Dimensions of a head, rounded up to whole panels. */
static inline size_t attention_wide(const struct attention *a)
{
    return ((size_t)a->head_dim + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS;
}

/* Keys of all segments, and blocks of them. */
int attention_keys(const struct attention *a);
static inline int attention_key_blocks(const struct attention *a)
{
    return (attention_keys(a) + KEY_BLOCK - 1) / KEY_BLOCK;
}

/* Floats of a block of packed keys, and of the values behind them. */
static inline size_t attention_block_floats(const struct attention *a)
{
    return KEY_BLOCK * ((size_t)a->head_dim + attention_wide(a));
}

/* Floats of all blocks of a key head. */
static inline size_t attention_head_floats(const struct attention *a)
{
    return (size_t)attention_key_blocks(a) * attention_block_floats(a);
}

/* The rows of a task, memory not yet given, and the key head they belong to. */
struct attention_rows attention_rows_of(const struct attention_work *work, int index, int *kv_head);
void attention_clear(struct attention_rows *r); /* nothing seen so far */

/* Rows of the keys and values of head `head` from number `first` of all segments on. */
void attention_find_rows(const struct attention *a, int head, int first, int count, const float **keys,
                         const float **values);

/* Keys of `keys` that a row sees. */
int attention_visible(const struct attention_rows *r, int row, int keys);

/* Scores [rows, KEY_BLOCK] of `count` keys from number `first` on become weights, zero for those that a row does not
 * see; the rows' maximum, sum and output follow. */
void attention_soften(struct attention_rows *r, int row, int rows, float *scores, int first, int count, int keys);

/* The outputs divided by the sums, where they belong; `head` is the first of the group. */
void attention_finish(const struct attention_rows *r, int head);

#endif
