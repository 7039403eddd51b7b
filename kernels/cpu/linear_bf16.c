/* linear_bf16.c: products with a matrix in bf16; see bf16.h.
 *
 * y [rows, out] = x [rows, in] W^T is formed as W x^T: rows of the matrix, decoded a slab at a time, are
 * the rows of the product as they lie in memory, and x, packed once, is its panels. The sums come out
 * with rows and columns exchanged.
 *
 *   task: ROW_BLOCK rows of x, a chunk of the matrix's rows; sums in the L2 cache
 *     a step of depth         that part of x stays in the L2 cache
 *       slab                  two tiles of matrix rows, decoded once for all ROW_BLOCK rows of x
 *
 * A number of y is summed over the depth in order, so that it depends on nothing but its row and its column.
 */
#include "kernels/cpu/linear_bf16.h"

#include <string.h>

enum {
    ROW_BLOCK = 512,
    DEPTH_STEP = 1024,
    SLAB = 2 * BF16_TILE,
    FEW_ROWS = 64,                      /* of x: the matrix is read once from end to end, so steps are long */
    LONG_DEPTH_STEP = 16 * DEPTH_STEP,
    CHUNK_MAX = 8 * SLAB,
    TASKS_PER_THREAD = 4,
    PACKED_MAX = 8 << 20                /* numbers of x that are packed at a time, unless one block has more */
};

struct work {
    struct cpu *cpu;
    const struct linear_source *w;
    const float *bias, *x;
    float *y;
    bool add;
    int rows;            /* of x that are packed */
    int chunk, chunks;   /* rows of the matrix in a task, and how many such */
    int depth_step;
    size_t slab_row;     /* of a decoded row; not a power of two: rows would share the lines of a cache */
    bf16 *packed;        /* panels of x, whole depth */
    size_t panel_distance;
};

static int least(int a, int b)
{
    return a < b ? a : b;
}

static void pack_panels(const void *context, size_t first, size_t count)
{
    const struct work *work = context;
    const size_t in = (size_t)work->w->in_features;
    for (size_t panel = first; panel < first + count; panel++) {
        const float *source[BF16_TILE];
        for (int i = 0; i < BF16_TILE; i++) {
            const size_t row = panel * BF16_TILE + (size_t)i;
            source[i] = row < (size_t)work->rows ? work->x + row * in : NULL;
        }
        work->cpu->bf16->pack_columns(source, in, work->packed + panel * work->panel_distance);
    }
}

/* A slab of the matrix at some depths, times a block of x. */
static void multiply_slab(const struct work *work, int slab, int slab_rows, int row, int rows, int first, int depth,
                          bf16 *decoded, float *sums)
{
    const struct bf16_loops *loops = work->cpu->bf16;
    for (int r = 0; r < SLAB; r++) {
        if (r < slab_rows)
            loops->decode(work->w, slab + r, first, depth, decoded + (size_t)r * work->slab_row);
        else
            memset(decoded + (size_t)r * work->slab_row, 0, work->slab_row * sizeof *decoded);
    }
    const bf16 *at = decoded;
    struct bf16_product product = {.rows = &at,
                                   .row_distance = work->slab_row,
                                   .segments = 1,
                                   .steps = bf16_steps(depth),
                                   .panel_distance = work->panel_distance,
                                   .row_tiles = slab_rows > BF16_TILE ? 2 : 1,
                                   .c_row = ROW_BLOCK,
                                   .accumulate = first > 0};
    unsigned saved;
    loops->begin(&saved);
    for (int m = 0; m < rows; m += 2 * BF16_TILE) {
        product.panels = work->packed + (size_t)((row + m) / BF16_TILE) * work->panel_distance +
                         (size_t)(first / BF16_STEP) * BF16_PANEL_STEP;
        product.column_tiles = rows - m > BF16_TILE ? 2 : 1;
        product.c = sums + m;
        loops->multiply(&product);
    }
    loops->end(saved);
}

static void task(void *context, int index, int thread)
{
    const struct work *work = context;
    const int in = work->w->in_features, out = work->w->out_features;
    const int row = index / work->chunks * ROW_BLOCK, rows = least(ROW_BLOCK, work->rows - row);
    const int column = index % work->chunks * work->chunk, columns = least(work->chunk, out - column);
    float *sums = cpu_scratch(work->cpu, thread);
    bf16 *decoded = (bf16 *)(void *)(sums + CHUNK_MAX * ROW_BLOCK);
    for (int first = 0; first < in; first += work->depth_step)
        for (int slab = 0; slab < columns; slab += SLAB)
            multiply_slab(work, column + slab, least(SLAB, columns - slab), row, rows, first,
                          least(work->depth_step, in - first), decoded, sums + slab * ROW_BLOCK);
    work->cpu->bf16->store_transposed(sums, ROW_BLOCK, rows, columns, work->bias ? work->bias + column : NULL,
                                      work->add, work->y + (size_t)row * (size_t)out + column, (size_t)out);
}

void linear_bf16(struct cpu *cpu, const struct linear_source *w, const float *bias, const float *x, int rows, float *y,
                 bool add)
{
    struct work work = {.cpu = cpu, .w = w, .bias = bias, .x = x, .y = y, .add = add,
                        .panel_distance = bf16_steps(w->in_features) * BF16_PANEL_STEP};
    const int whole_depth = (int)bf16_steps(w->in_features) * BF16_STEP;
    work.depth_step = least(rows > FEW_ROWS ? DEPTH_STEP : LONG_DEPTH_STEP, whole_depth);
    work.slab_row = (size_t)work.depth_step + BF16_STEP;
    const size_t block = work.panel_distance * (ROW_BLOCK / BF16_TILE);
    const int at_once = least(rows, (int)(PACKED_MAX > block ? PACKED_MAX / block : 1) * ROW_BLOCK);
    const int panels = (at_once + BF16_TILE - 1) / BF16_TILE;
    if (!cpu_reserve(cpu, CHUNK_MAX * ROW_BLOCK + SLAB * work.slab_row / 2, (size_t)panels * work.panel_distance / 2))
        return;
    work.packed = (bf16 *)(void *)cpu->shared;
    for (int done = 0; done < rows; done += at_once) {
        work.rows = least(at_once, rows - done);
        const int row_blocks = (work.rows + ROW_BLOCK - 1) / ROW_BLOCK;
        const int slabs = (w->out_features + SLAB - 1) / SLAB, wanted = pool_threads(cpu->pool) * TASKS_PER_THREAD;
        const int even = (slabs * row_blocks + wanted - 1) / wanted;
        work.chunk = least(even > 0 ? even : 1, CHUNK_MAX / SLAB) * SLAB;
        work.chunks = (w->out_features + work.chunk - 1) / work.chunk;
        cpu_for(cpu, ((size_t)work.rows + BF16_TILE - 1) / BF16_TILE, 1, pack_panels, &work);
        pool_run(cpu->pool, row_blocks * work.chunks, task, &work);
        work.x += (size_t)at_once * (size_t)w->in_features;
        work.y += (size_t)at_once * (size_t)w->out_features;
    }
}
