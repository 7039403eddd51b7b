/* conv_bf16.c: convolutions with products in bf16; see conv.c and bf16.h.
 *
 * A task is a patch of one output frame. The input pixels under it, padding included, are rounded once into an image of
 * its own, a pixel's channels one after the other; then sixteen neighbours in it are the rows of a tile as they lie
 * there, under every tap from another place on. Where the stride is 1 the patch is one run of pixels, through the
 * image's margins from line to line; otherwise each line is a run of its own.
 *
 *   pair of panels          32 output channels
 *     TAPS of depth         that part of the weights stays in the L2 cache
 *       32 pixels           sums in registers
 */
#include "kernels/cpu/conv_bf16.h"
#include "kernels/formats/linear_source.h"

#include <string.h>

enum {
    RUN = 2 * BF16_TILE,
    IMAGE_MAX = 3 << 19,          /* numbers of a task's image: 3 MB, unless two lines of it have more */
    COLUMNS_MAX = 128,            /* output columns of a patch */
    WEIGHTS_MAX = 1 << 18,        /* numbers of a pair of panels that are used for all pixels before the next ones */
    TASKS_PER_THREAD = 3
};

static int least(int a, int b)
{
    return a < b ? a : b;
}

static int pieces(int n, int of)
{
    return (n + of - 1) / of;
}

static size_t padded_channels(const struct conv *c)
{
    return bf16_steps(c->in_channels) * BF16_STEP;
}

size_t conv_bf16_panel(const struct conv *c)
{
    return (size_t)(c->kernel_t * c->kernel_h * c->kernel_w) * padded_channels(c) * BF16_TILE;
}

void conv_bf16_repack(const struct conv *c, size_t first_tap, size_t taps, size_t panel)
{
    const struct conv_source *source = &c->source;
    const size_t all_taps = (size_t)(c->kernel_t * c->kernel_h * c->kernel_w), in = (size_t)c->in_channels,
                 depth = padded_channels(c) * BF16_TILE;
    bf16 *to = c->rounded + panel * conv_bf16_panel(c);
    memset(to + first_tap * depth, 0, taps * depth * sizeof *to);
    for (size_t j = 0; j < BF16_TILE && panel * BF16_TILE + j < (size_t)c->out_channels; j++)
        for (size_t i = 0; i < in; i++) /* as the file has them */
            for (size_t tap = first_tap; tap < first_tap + taps; tap++)
                to[tap * depth + i / 2 * (2 * BF16_TILE) + 2 * j + i % 2] = bf16_nearest(
                    element_at(source->format, source->weight, ((panel * BF16_TILE + j) * in + i) * all_taps + tap));
}

struct work {
    struct cpu *cpu;
    const struct conv_gather *g;
    int taps_t;                          /* time taps that see anything */
    int patch_rows, patch_columns;       /* of the output */
    int rows_of_patches, columns_of_patches;
    size_t channels;                     /* padded */
};

/* One task's patch and image. */
struct patch {
    int frame, row, column, rows, columns; /* of the output */
    int lines, width;                      /* of the image, for each time tap */
    bf16 *image;                           /* [taps_t][lines][width][channels] */
};

static void fill_image(const struct work *work, const struct patch *p)
{
    const struct conv_gather *g = work->g;
    const struct conv_call *call = g->call;
    bf16 *to = p->image;
    for (int t = 0; t < work->taps_t; t++)
        for (int y = 0; y < p->lines; y++)
            for (int x = 0; x < p->width; x++, to += work->channels) {
                const float *pixel = conv_pixel(g, p->frame * call->stride_t - g->context + g->first_tap_t + t,
                                                p->row * call->stride_h - call->pad_top + y,
                                                p->column * call->stride_w - call->pad_left + x);
                if (pixel)
                    work->cpu->bf16->round(pixel, (size_t)g->conv->in_channels, work->channels, to);
                else
                    memset(to, 0, work->channels * sizeof *to);
            }
}

/* Where a run of output pixels starts in the image, under the first tap, and in the patch's sums. */
struct run {
    size_t image; /* pixels */
    int first, count;
};

/* 32 output channels at `column`, some taps, all pixels of a run. */
static void multiply_run(const struct work *work, const struct patch *p, const struct run *run, int column,
                         int first_tap, int taps, float *sums)
{
    const struct conv *c = work->g->conv;
    const int plane = c->kernel_h * c->kernel_w;
    const size_t panel = conv_bf16_panel(c), depth = work->channels * BF16_TILE;
    const bf16 *rows[BF16_SEGMENTS];
    struct bf16_product product = {
        .rows = rows,
        .row_distance = work->channels * (size_t)work->g->call->stride_w,
        .segments = taps,
        .steps = work->channels / BF16_STEP,
        .panels = c->rounded + (size_t)(column / BF16_TILE) * panel +
                  (size_t)(work->g->first_tap_t * plane + first_tap) * depth,
        .panel_distance = panel,
        .column_tiles = c->out_channels - column > BF16_TILE ? 2 : 1,
        .c_row = RUN,
        .accumulate = first_tap > 0};
    for (int i = 0; i < run->count; i += RUN) {
        for (int s = 0; s < taps; s++) {
            const int tap = first_tap + s, t = tap / plane, h = tap % plane / c->kernel_w, w = tap % c->kernel_w;
            const size_t pixel = (size_t)((t * p->lines + h) * p->width + w) + run->image;
            rows[s] = p->image + pixel * work->channels + (size_t)i * product.row_distance;
        }
        product.row_tiles = run->count - i > BF16_TILE ? 2 : 1;
        product.c = sums + (size_t)(run->first + i) * RUN;
        work->cpu->bf16->multiply(&product);
    }
}

static void store(const struct work *work, const struct patch *p, const struct run *run, int line, int column,
                  const float *sums)
{
    const struct conv_gather *g = work->g;
    const struct conv *c = g->conv;
    const int columns = least(RUN, c->out_channels - column);
    for (int x = 0; x < p->columns; x++) {
        const float *from = sums + (size_t)(run->first + x) * RUN;
        const size_t pixel = ((size_t)p->frame * (size_t)g->rows + (size_t)(p->row + line)) * (size_t)g->columns +
                             (size_t)(p->column + x);
        float *to = floats(g->call->out) + pixel * (size_t)c->out_channels + column;
        for (int j = 0; j < columns; j++) {
            const float value = from[j] + (c->bias ? c->bias[column + j] : 0.0f);
            to[j] = g->call->add ? to[j] + value : value;
        }
    }
}

/* Runs of a patch: one line of output each; with stride 1 the first covers all of them. */
static struct run run_of(const struct work *work, const struct patch *p, int line)
{
    const struct conv_call *call = work->g->call;
    const bool one = call->stride_h == 1 && call->stride_w == 1;
    struct run run = {.image = (size_t)(line * call->stride_h * p->width)};
    run.first = one ? line * p->width : line * pieces(p->columns, RUN) * RUN;
    run.count = one && line == 0 ? (p->rows - 1) * p->width + p->columns : p->columns;
    return run;
}

static int sums_of(const struct work *work, int rows, int columns, int width)
{
    const struct conv_call *call = work->g->call;
    return call->stride_h == 1 && call->stride_w == 1 ? pieces((rows - 1) * width + columns, RUN) * RUN
                                                      : rows * pieces(columns, RUN) * RUN;
}

static void task(void *context, int index, int thread)
{
    const struct work *work = context;
    const struct conv_gather *g = work->g;
    const struct conv_call *call = g->call;
    const struct conv *c = g->conv;
    const int of_frame = work->rows_of_patches * work->columns_of_patches;
    struct patch p = {.frame = index / of_frame,
                      .row = index % of_frame / work->columns_of_patches * work->patch_rows,
                      .column = index % work->columns_of_patches * work->patch_columns};
    p.rows = least(work->patch_rows, g->rows - p.row);
    p.columns = least(work->patch_columns, g->columns - p.column);
    p.lines = (p.rows - 1) * call->stride_h + c->kernel_h;
    p.width = (p.columns - 1) * call->stride_w + c->kernel_w;
    float *sums = cpu_scratch(work->cpu, thread);
    p.image = (bf16 *)(void *)(sums + (size_t)sums_of(work, work->patch_rows, work->patch_columns,
                                                      (work->patch_columns - 1) * call->stride_w + c->kernel_w) * RUN);
    fill_image(work, &p);

    const int taps = work->taps_t * c->kernel_h * c->kernel_w,
              lines = call->stride_h == 1 && call->stride_w == 1 ? 1 : p.rows;
    const int at_once = least(BF16_SEGMENTS, (int)(WEIGHTS_MAX / (work->channels * RUN)));
    for (int column = 0; column < c->out_channels; column += RUN) {
        unsigned saved;
        work->cpu->bf16->begin(&saved);
        for (int tap = 0; tap < taps; tap += at_once > 0 ? at_once : 1)
            for (int line = 0; line < lines; line++) {
                const struct run run = run_of(work, &p, line);
                multiply_run(work, &p, &run, column, tap, least(at_once > 0 ? at_once : 1, taps - tap), sums);
            }
        work->cpu->bf16->end(saved);
        for (int line = 0; line < p.rows; line++) {
            const struct run run = run_of(work, &p, line);
            store(work, &p, &run, line, column, sums);
        }
    }
}

void conv_bf16(struct cpu *cpu, const struct conv_gather *g)
{
    const struct conv *c = g->conv;
    const struct conv_call *call = g->call;
    struct work work = {.cpu = cpu, .g = g, .taps_t = c->kernel_t - g->first_tap_t, .channels = padded_channels(c)};
    work.columns_of_patches = pieces(g->columns, COLUMNS_MAX);
    work.patch_columns = pieces(g->columns, work.columns_of_patches);
    const int width = (work.patch_columns - 1) * call->stride_w + c->kernel_w;
    const size_t line = (size_t)work.taps_t * (size_t)width * work.channels;
    const int lines = (int)(IMAGE_MAX / line);
    int rows = lines > c->kernel_h ? (lines - c->kernel_h) / call->stride_h + 1 : 1;
    const int wanted = pieces(pool_threads(cpu->pool) * TASKS_PER_THREAD, g->frames * work.columns_of_patches);
    rows = least(rows, pieces(g->rows, wanted));
    work.rows_of_patches = pieces(g->rows, rows);
    work.patch_rows = pieces(g->rows, work.rows_of_patches);

    const size_t sums = (size_t)sums_of(&work, work.patch_rows, work.patch_columns, width) * RUN;
    const size_t image = line * (size_t)((work.patch_rows - 1) * call->stride_h + c->kernel_h);
    /* Read behind the last run, and not used. */
    const size_t slack = (size_t)RUN * work.channels * (size_t)call->stride_w;
    if (cpu_reserve(cpu, sums + (image + slack) / 2 + CACHE_LINE, 0))
        pool_run(cpu->pool, g->frames * work.rows_of_patches * work.columns_of_patches, task, &work);
}
