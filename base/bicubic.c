/* bicubic.c: see bicubic.h.
 *
 * Pillow resizes along rows first, rounds to 8 bits, then along columns. The filter is
 * stretched when shrinking, so that every source pixel counts. Weights are 22-bit fixed
 * point. Source of the arithmetic: src/libImaging/Resample.c of Pillow.
 */
#include "base/bicubic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WEIGHT_BITS = 32 - 8 - 2 };

/* For every output position: the source positions first .. first+count-1 and their weights. */
struct filter {
    int taps; /* room per position */
    struct span { int first, count; } *spans;
    int32_t *weights; /* [positions, taps] */
};

static double cubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

static void filter_free(struct filter *filter)
{
    free(filter->spans);
    free(filter->weights);
}

static int filter_make(struct filter *filter, int in_size, int out_size, struct error *error)
{
    double scale = (double)in_size / out_size;
    double stretch = scale < 1.0 ? 1.0 : scale;
    double support = 2.0 * stretch;
    filter->taps = (int)ceil(support) * 2 + 1;
    filter->spans = malloc((size_t)out_size * sizeof *filter->spans);
    filter->weights = malloc((size_t)out_size * (size_t)filter->taps * sizeof *filter->weights);
    double *exact = malloc((size_t)filter->taps * sizeof *exact);
    if (!filter->spans || !filter->weights || !exact) {
        free(exact);
        filter_free(filter);
        return error_set(error, ERROR_NO_MEMORY, "out of memory for resizing a picture");
    }
    for (int i = 0; i < out_size; i++) {
        double center = (i + 0.5) * scale, sum = 0;
        int first = (int)(center - support + 0.5);
        int end = (int)(center + support + 0.5);
        first = first < 0 ? 0 : first;
        end = end > in_size ? in_size : end;
        filter->spans[i] = (struct span){first, end - first};
        for (int j = 0; j < end - first; j++) {
            exact[j] = cubic((j + first - center + 0.5) * (1.0 / stretch));
            sum += exact[j];
        }
        int32_t *weights = filter->weights + (size_t)i * (size_t)filter->taps;
        for (int j = 0; j < end - first; j++) {
            double weight = (sum != 0 ? exact[j] / sum : exact[j]) * (1 << WEIGHT_BITS);
            weights[j] = (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
        }
    }
    free(exact);
    return 0;
}

static uint8_t to_u8(int32_t fixed)
{
    fixed >>= WEIGHT_BITS;
    return (uint8_t)(fixed < 0 ? 0 : fixed > 255 ? 255 : fixed);
}

enum { HALF = 1 << (WEIGHT_BITS - 1) };

static void resize_row(const struct filter *filter, const uint8_t *in, uint8_t *out, int out_width)
{
    for (int x = 0; x < out_width; x++, out += 3) {
        struct span span = filter->spans[x];
        const int32_t *weights = filter->weights + (size_t)x * (size_t)filter->taps;
        const uint8_t *pixel = in + 3 * (size_t)span.first;
        int32_t sum[3] = {HALF, HALF, HALF};
        for (int j = 0; j < span.count; j++, pixel += 3)
            for (int c = 0; c < 3; c++)
                sum[c] += pixel[c] * weights[j];
        for (int c = 0; c < 3; c++)
            out[c] = to_u8(sum[c]);
    }
}

/* `bytes` = 3 * width values of one output row, from the rows above one another at `in`. */
static void resize_column(const struct filter *filter, int y, const uint8_t *in, size_t in_stride, int32_t *sums,
                          uint8_t *out, size_t bytes)
{
    struct span span = filter->spans[y];
    const int32_t *weights = filter->weights + (size_t)y * (size_t)filter->taps;
    for (size_t i = 0; i < bytes; i++)
        sums[i] = HALF;
    for (int j = 0; j < span.count; j++) {
        const uint8_t *row = in + (size_t)(span.first + j) * in_stride;
        for (size_t i = 0; i < bytes; i++)
            sums[i] += row[i] * weights[j];
    }
    for (size_t i = 0; i < bytes; i++)
        out[i] = to_u8(sums[i]);
}

static int resize_rows(const uint8_t *in, size_t in_stride, int height, int width, uint8_t *out, int out_width,
                       struct error *error)
{
    struct filter filter;
    int code = filter_make(&filter, width, out_width, error);
    if (code < 0)
        return code;
    for (int y = 0; y < height; y++)
        resize_row(&filter, in + (size_t)y * in_stride, out + (size_t)y * 3 * (size_t)out_width, out_width);
    filter_free(&filter);
    return 0;
}

static int resize_columns(const uint8_t *in, size_t in_stride, int height, uint8_t *out, int out_height, int width,
                          struct error *error)
{
    struct filter filter;
    size_t bytes = 3 * (size_t)width;
    int32_t *sums = malloc(bytes * sizeof *sums);
    if (!sums)
        return error_set(error, ERROR_NO_MEMORY, "out of memory for resizing a picture");
    int code = filter_make(&filter, height, out_height, error);
    if (code == 0) {
        for (int y = 0; y < out_height; y++)
            resize_column(&filter, y, in, in_stride, sums, out + (size_t)y * bytes, bytes);
        filter_free(&filter);
    }
    free(sums);
    return code;
}

int bicubic_resize(const uint8_t *in, size_t in_stride, int height, int width, uint8_t *out, int out_height,
                   int out_width, struct error *error)
{
    if (width == out_width && height == out_height) {
        for (int y = 0; y < height; y++)
            memcpy(out + (size_t)y * 3 * (size_t)width, in + (size_t)y * in_stride, 3 * (size_t)width);
        return 0;
    }
    if (width == out_width)
        return resize_columns(in, in_stride, height, out, out_height, out_width, error);
    if (height == out_height)
        return resize_rows(in, in_stride, height, width, out, out_width, error);
    uint8_t *between = malloc(3 * (size_t)out_width * (size_t)height);
    if (!between)
        return error_set(error, ERROR_NO_MEMORY, "out of memory for resizing a picture");
    int code = resize_rows(in, in_stride, height, width, between, out_width, error);
    if (code == 0)
        code = resize_columns(between, 3 * (size_t)out_width, height, out, out_height, out_width, error);
    free(between);
    return code;
}
