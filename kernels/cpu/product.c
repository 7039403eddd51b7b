/* product.c: see product.h. The loops are those of Goto's algorithm:
 *
 *   task: a rectangle of out
 *     block of depth          panels of right decoded once, in the L2/L3 cache
 *       ROW_BLOCK rows        strips of left packed, in the L2 cache
 *         panel               stays in the L1 cache
 *           strip             micro-kernel: tile_rows x 16 sums in registers
 *
 * but for few rows, whose strips are packed first, of all depths if they fit: see few_rows(). Blocks of depth are added
 * in rising order either way, so that a row comes out the same.
 */
#include "kernels/cpu/product.h"

#include <string.h>

enum {
    ROW_BLOCK = 96,           /* a multiple of every tile_rows */
    COLUMN_BLOCK_MAX = 512,
    COLUMN_BLOCK_MIN = 64,
    TASKS_PER_THREAD = 4,
    /* Floats of a thread's scratch: strips of a block and panels of a task, or the other way round for few rows. */
    SMALL_BUFFER = ROW_BLOCK * DEPTH_BLOCK,
    LARGE_BUFFER = COLUMN_BLOCK_MAX * DEPTH_BLOCK,
};

struct plan {
    const struct product *product;
    struct cpu *cpu;
    int row_block, column_block, column_blocks;
};

static int round_up(int n, int multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

static void initialise(const struct product *p, int row, int rows, int column, int columns)
{
    if (p->add && !p->bias)
        return;
    for (int r = row; r < row + rows; r++) {
        float *out = p->out + (size_t)r * (size_t)p->columns + column;
        if (p->add)
            for (int j = 0; j < columns; j++)
                out[j] += p->bias[column + j];
        else if (p->bias)
            memcpy(out, p->bias + column, (size_t)columns * sizeof *out);
        else
            memset(out, 0, (size_t)columns * sizeof *out);
    }
}

/* One panel, or as many as the micro-kernel takes at a time, times the strips of `rows` rows, added to out. */
static void multiply(const struct micro *micro, const struct product *p, const float *strips, const float *panel,
                     size_t distance, int row, int rows, int column, int columns, int depth)
{
    for (int done = 0; done < rows; done += micro->tile_rows) {
        int height = least(micro->tile_rows, rows - done);
        const float *strip = strips + (size_t)done * (size_t)depth;
        float *out = p->out + (size_t)(row + done) * (size_t)p->columns + column;
        if (columns % TILE_COLUMNS == 0) {
            micro->tile(height, columns / TILE_COLUMNS, (size_t)depth, strip, 1, (size_t)height, panel, distance, out,
                        (size_t)p->columns, true);
            continue;
        }
        float tile[TILE_ROWS_MAX * TILE_COLUMNS];
        micro->tile(height, 1, (size_t)depth, strip, 1, (size_t)height, panel, distance, tile, TILE_COLUMNS, false);
        for (int r = 0; r < height; r++)
            for (int j = 0; j < columns; j++)
                out[(size_t)r * (size_t)p->columns + (size_t)j] += tile[r * TILE_COLUMNS + j];
    }
}

/* A rectangle of out. */
struct block {
    int row, rows, column, columns;
};

/* Adds to a block the products of its rows' strips and its columns' panels, at the depths [first, first+depth). */
static void multiply_panels(const struct plan *plan, struct block b, int depth, const float *strips,
                            const float *panels, size_t distance)
{
    const struct micro *micro = plan->cpu->micro;
    const int width = micro->tile_panels * TILE_COLUMNS;
    for (int c = 0, wide; c < b.columns; c += wide) {
        wide = b.columns - c >= width ? width : TILE_COLUMNS;
        multiply(micro, plan->product, strips, panels + (size_t)(c / TILE_COLUMNS) * distance, distance, b.row, b.rows,
                 b.column + c, least(wide, b.columns - c), depth);
    }
}

static void many_rows(const struct plan *plan, struct block all, float *strips, float *buffer)
{
    const struct product *p = plan->product;
    const struct micro *micro = plan->cpu->micro;
    for (int first = p->depth_first; first < p->depth_end; first += DEPTH_BLOCK) {
        int depth = least(DEPTH_BLOCK, p->depth_end - first);
        size_t distance = 0;
        const float *panels = p->right(p->context, micro, all.column, all.columns, first, depth, buffer, &distance);
        for (int r = 0; r < all.rows; r += ROW_BLOCK) {
            struct block b = all;
            b.row += r;
            b.rows = least(ROW_BLOCK, all.rows - r);
            p->left(p->context, micro, b.row, b.rows, first, depth, strips);
            multiply_panels(plan, b, depth, strips, panels, distance);
        }
    }
}

/* One strip and one panel, without the panel where there is such a way. */
static bool multiply_directly(const struct plan *plan, struct block b, int first, int depth, const float *strip)
{
    const struct product *p = plan->product;
    const struct micro *micro = plan->cpu->micro;
    return p->direct && b.columns == TILE_COLUMNS && b.rows <= micro->tile_rows &&
           p->direct(p->context, micro, b.column, first, depth, b.rows, strip,
                     p->out + (size_t)b.row * (size_t)p->columns + b.column, (size_t)p->columns);
}

/* At the depths [start, end) each panel is used while it is in the L1 cache, and right is read along its columns (rows
 * of the file's matrix), in the order in which it lies in memory. */
static void few_rows_part(const struct plan *plan, struct block all, int start, int end, float *strips, float *buffer)
{
    const struct product *p = plan->product;
    const struct micro *micro = plan->cpu->micro;
    const int width = micro->tile_panels * TILE_COLUMNS;
    for (int first = start; first < end; first += DEPTH_BLOCK)
        p->left(p->context, micro, all.row, all.rows, first, least(DEPTH_BLOCK, end - first),
                strips + (size_t)all.rows * (size_t)(first - start));
    for (int c = 0; c < all.columns; c += width) {
        const struct block b = {all.row, all.rows, all.column + c, least(width, all.columns - c)};
        for (int first = start; first < end; first += DEPTH_BLOCK) {
            int depth = least(DEPTH_BLOCK, end - first);
            const float *these = strips + (size_t)all.rows * (size_t)(first - start);
            if (multiply_directly(plan, b, first, depth, these))
                continue;
            size_t distance = 0;
            const float *panels = p->right(p->context, micro, b.column, b.columns, first, depth, buffer, &distance);
            multiply_panels(plan, b, depth, these, panels, distance);
        }
    }
}

static void few_rows(const struct plan *plan, struct block all, float *strips, float *buffer)
{
    const struct product *p = plan->product;
    const int part = LARGE_BUFFER / all.rows / DEPTH_BLOCK * DEPTH_BLOCK;
    for (int start = p->depth_first; start < p->depth_end; start += part)
        few_rows_part(plan, all, start, least(start + part, p->depth_end), strips, buffer);
}

static void task(void *context, int index, int thread)
{
    const struct plan *plan = context;
    const struct product *p = plan->product;
    struct block b = {index / plan->column_blocks * plan->row_block, 0,
                      index % plan->column_blocks * plan->column_block, 0};
    b.rows = least(plan->row_block, p->rows - b.row);
    b.columns = least(plan->column_block, p->columns - b.column);
    float *small = cpu_scratch(plan->cpu, thread), *large = small + SMALL_BUFFER + CACHE_LINE;
    initialise(p, b.row, b.rows, b.column, b.columns);
    if (b.rows <= ROW_BLOCK)
        few_rows(plan, b, large, small);
    else
        many_rows(plan, b, small, large);
}

void product_run(struct cpu *cpu, const struct product *product)
{
    if (product->rows <= 0 || product->columns <= 0)
        return;
    struct plan plan = {.product = product, .cpu = cpu};
    int threads = pool_threads(cpu->pool);
    int wanted = threads > 1 ? threads * TASKS_PER_THREAD : 1;
    int row_pieces = 1, column_pieces = 1;
    int row_limit = (product->rows + ROW_BLOCK - 1) / ROW_BLOCK;
    int column_limit = (product->columns + COLUMN_BLOCK_MIN - 1) / COLUMN_BLOCK_MIN;
    if (product->split_rows) {
        row_pieces = least(wanted, row_limit);
        column_pieces = least((wanted + row_pieces - 1) / row_pieces, column_limit);
    } else {
        /* Wide pieces: each packs its rows of left anew. */
        column_pieces = least(wanted, (product->columns + COLUMN_BLOCK_MAX - 1) / COLUMN_BLOCK_MAX);
        row_pieces = least((wanted + column_pieces - 1) / column_pieces, row_limit);
        column_pieces = least((wanted + row_pieces - 1) / row_pieces, column_limit);
    }
    plan.row_block = round_up((product->rows + row_pieces - 1) / row_pieces, ROW_BLOCK);
    plan.column_block = least(round_up((product->columns + column_pieces - 1) / column_pieces, TILE_COLUMNS),
                              COLUMN_BLOCK_MAX);
    plan.column_blocks = (product->columns + plan.column_block - 1) / plan.column_block;
    int row_blocks = (product->rows + plan.row_block - 1) / plan.row_block;

    if (!cpu_reserve(cpu, SMALL_BUFFER + 2 * CACHE_LINE + LARGE_BUFFER, 0))
        return;
    pool_run(cpu->pool, row_blocks * plan.column_blocks, task, &plan);
}
