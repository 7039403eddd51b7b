/* linear.c: matrices in the checkpoint's own precision: products and embedding rows.
 *
 * Several rows go through the blocked product, whose right factor is decoded panel by
 * panel; a single row (text decoding) reads the weights once, row by row (gemv). Every
 * row of a blocked product is summed in the same order whatever the number of rows, so
 * that a picture does not depend on the batch it was made in: that is why two or three
 * rows do not take the faster way. */
#include "kernels/cpu/linear_bf16.h"
#include "kernels/cpu/operators.h"
#include "kernels/cpu/product.h"
#include "kernels/formats/linear_source.h"

#include <stdlib.h>

enum { GEMV_COLUMNS = 64 };

struct linear {
    struct linear_source source;
    float *bias; /* float32, aligned, or NULL */
    size_t bytes;
};

static int cpu_linear_open(struct kernels *k, struct linear **out, const struct linear_source *source,
                           struct error *error)
{
    *out = NULL;
    int failed = linear_source_check(source, error);
    if (failed)
        return failed;
    struct linear *linear = calloc(1, sizeof *linear);
    if (!linear)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a matrix");
    linear->source = *source;
    linear->bytes = sizeof *linear;
    if (source->bias) {
        size_t n = (size_t)source->out_features;
        linear->bias = cpu_allocate(n * sizeof *linear->bias);
        if (!linear->bias) {
            free(linear);
            return error_set(error, ERROR_NO_MEMORY, "no memory for a bias of %zu values", n);
        }
        for (size_t i = 0; i < n; i++)
            linear->bias[i] = element_at(source->bias_format, source->bias, i);
        linear->bytes += n * sizeof *linear->bias;
    }
    cpu_count(cpu_of(k), (int64_t)linear->bytes);
    *out = linear;
    return 0;
}

static void cpu_linear_close(struct kernels *k, struct linear *linear)
{
    if (!linear)
        return;
    cpu_count(cpu_of(k), -(int64_t)linear->bytes);
    free(linear->bias);
    free(linear);
}

struct factors {
    const struct linear_source *w;
    const float *x;
};

static void left_strips(const void *context, const struct micro *micro, int row, int rows, int first, int depth,
                        float *strips)
{
    const struct factors *f = context;
    for (int done = 0; done < rows; done += micro->tile_rows) {
        int height = rows - done < micro->tile_rows ? rows - done : micro->tile_rows;
        const float *source[TILE_ROWS_MAX];
        for (int r = 0; r < height; r++)
            source[r] = f->x + (size_t)(row + done + r) * (size_t)f->w->in_features + first;
        micro->pack(source, height, (size_t)depth, strips + (size_t)done * (size_t)depth);
    }
}

static const float *right_panels(const void *context, const struct micro *micro, int column, int columns, int first,
                                 int depth, float *buffer, size_t *distance)
{
    const struct factors *f = context;
    *distance = (size_t)depth * TILE_COLUMNS;
    for (int c = 0; c < columns; c += TILE_COLUMNS)
        micro->decode_panel(f->w, column + c, columns - c < TILE_COLUMNS ? columns - c : TILE_COLUMNS, first, depth,
                            buffer + (size_t)(c / TILE_COLUMNS) * *distance);
    return buffer;
}

static bool strip_times_codes(const void *context, const struct micro *micro, int column, int first, int depth,
                              int rows, const float *strip, float *out, size_t out_row)
{
    const struct factors *f = context;
    return micro->multiply_codes && micro->multiply_codes(f->w, column, first, depth, rows, strip, out, out_row);
}

struct gemv_work {
    const struct micro *micro;
    struct gemv gemv;
};

static void gemv_columns(const void *context, size_t first, size_t count)
{
    const struct gemv_work *work = context;
    work->micro->gemv(&work->gemv, (int)first, (int)count);
}

static void single_row(struct cpu *cpu, const struct linear *w, const float *x, float *y, bool add)
{
    if (!cpu_reserve(cpu, 0, cpu->micro->gemv_prepared_floats(&w->source)))
        return;
    cpu->micro->gemv_prepare(&w->source, x, cpu->shared);
    struct gemv_work work = {.micro = cpu->micro,
                             .gemv = {.w = &w->source, .x = cpu->shared, .y = y, .bias = w->bias, .add = add}};
    cpu_for(cpu, (size_t)w->source.out_features, GEMV_COLUMNS, gemv_columns, &work);
}

static void cpu_linear(struct kernels *k, const struct linear *w, const act *x, int rows, act *y, bool add)
{
    struct cpu *cpu = cpu_of(k);
    if (rows <= 0)
        return;
    if (rows == 1) {
        single_row(cpu, w, floats(x), floats(y), add);
        return;
    }
    if (cpu->bf16) {
        linear_bf16(cpu, &w->source, w->bias, floats(x), rows, floats(y), add);
        return;
    }
    struct factors factors = {.w = &w->source, .x = floats(x)};
    product_run(cpu, &(struct product){.rows = rows,
                                       .columns = w->source.out_features,
                                       .depth_end = w->source.in_features,
                                       .out = floats(y),
                                       .bias = w->bias,
                                       .add = add,
                                       .context = &factors,
                                       .left = left_strips,
                                       .right = right_panels,
                                       .direct = strip_times_codes});
}

/* Where the rows lie as products take them. */
static const act *normed(struct kernels *k, const struct normed_rows *x, int width)
{
    if (!x->weight)
        return x->x;
    k->rms_norm(k, x->x, x->rows, width, x->weight, x->eps, x->h);
    return x->h;
}

static void cpu_linear_group(struct kernels *k, const struct linear *const *w, int count, const struct normed_rows *x,
                             act *const *y)
{
    const act *rows = normed(k, x, w[0]->source.in_features);
    for (int i = 0; i < count; i++)
        cpu_linear(k, w[i], rows, x->rows, y[i], false);
}

static void cpu_linear_swiglu(struct kernels *k, const struct linear *gate, const struct linear *up,
                              const struct normed_rows *x, act *out, act *spare)
{
    const struct linear *const both[] = {gate, up};
    act *const made[] = {out, spare};
    cpu_linear_group(k, both, 2, x, made);
    if (x->rows > 0)
        k->swiglu(k, out, spare, (size_t)x->rows * (size_t)gate->source.out_features, out);
}

struct embed_work {
    const struct micro *micro;
    const struct linear_source *table;
    const int32_t *ids;
    float *y;
};

static void embed_rows(const void *context, size_t first, size_t count)
{
    const struct embed_work *work = context;
    int width = work->table->in_features;
    for (size_t row = first; row < first + count; row++)
        work->micro->decode_row(work->table, work->ids[row], 0, width, work->y + row * (size_t)width);
}

static void cpu_embed(struct kernels *k, const struct linear *table, const int32_t *ids, int rows, act *y)
{
    struct cpu *cpu = cpu_of(k);
    struct embed_work work = {.micro = cpu->micro, .table = &table->source, .ids = ids, .y = floats(y)};
    if (rows > 0)
        cpu_for(cpu, (size_t)rows, 64, embed_rows, &work);
}

void cpu_linear_fill(struct kernels *k)
{
    k->linear_open = cpu_linear_open;
    k->linear_close = cpu_linear_close;
    k->linear = cpu_linear;
    k->linear_group = cpu_linear_group;
    k->linear_swiglu = cpu_linear_swiglu;
    k->embed = cpu_embed;
}
