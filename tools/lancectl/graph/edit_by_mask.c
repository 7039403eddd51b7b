/* edit_by_mask.c: see edit_by_mask.h. Multiplications and additions must not be fused here: -std=c11 forbids it to
 * gcc, the pragma to clang. */
#include "tools/lancectl/graph/edit_by_mask.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bicubic.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

enum { CELL_PIXELS = 16 };

struct box {
    int top, left, height, width;
};

/* The part of a picture that is resized to the size (lanced_client/cropping.py). */
static struct box cropped_box(int height, int width, int to_height, int to_width)
{
    const double ratio = (double)to_width / to_height, source_ratio = (double)width / height;
    const double rounded_ratio = expf(logf((float)ratio));
    int tall = (int)rint(sqrt((double)height * width / rounded_ratio)),
        wide = (int)rint(sqrt((double)height * width * rounded_ratio));
    if (!(0 < tall && tall <= height && 0 < wide && wide <= width)) {
        tall = height;
        wide = width;
        if (source_ratio < ratio)
            tall = (int)fmax(1, rint(width / ratio));
        else if (source_ratio > ratio)
            wide = (int)fmax(1, rint(height * ratio));
    }
    return (struct box){(height - tall) / 2, (width - wide) / 2, tall, wide};
}

/* Resize `lines` lines of `size` values to `to_size`, as Pillow's BILINEAR does for floats. Values are `stride`
 * apart, lines `line_stride`. */
static void resize_lines(const float *in, int lines, int line_stride, int stride, int size, float *out,
                         int out_line_stride, int out_stride, int to_size)
{
    const double scale = (double)size / to_size, filter_scale = fmax(scale, 1), narrower = 1.0 / filter_scale;
    for (int x = 0; x < to_size; x++) {
        const double centre = (x + 0.5) * scale;
        const int first = (int)fmax(centre - filter_scale + 0.5, 0),
                  last = (int)fmin(centre + filter_scale + 0.5, size);
        double sum = 0;
        for (int i = first; i < last; i++)
            sum += fmax(1 - fabs((i - centre + 0.5) * narrower), 0);
        for (int y = 0; y < lines; y++) {
            double value = 0;
            for (int i = first; i < last; i++)
                value += in[y * line_stride + i * stride] * (fmax(1 - fabs((i - centre + 0.5) * narrower), 0) / sum);
            out[y * out_line_stride + x * out_stride] = (float)value;
        }
    }
}

/* A part of a mask whose lines are `stride` long, at another size, in 0..1; malloc'ed. NULL: out of memory. */
static float *resized_mask(const float *mask, int stride, int height, int width, int to_height, int to_width)
{
    float *wide = malloc((size_t)height * (size_t)to_width * sizeof *wide),
          *made = malloc((size_t)to_height * (size_t)to_width * sizeof *made);
    if (wide && made) {
        if (width == to_width)
            for (int y = 0; y < height; y++)
                memcpy(wide + (size_t)y * (size_t)width, mask + (size_t)y * (size_t)stride,
                       (size_t)width * sizeof *wide);
        else
            resize_lines(mask, height, stride, 1, width, wide, to_width, 1, to_width);
        if (height == to_height)
            memcpy(made, wide, (size_t)height * (size_t)to_width * sizeof *made);
        else
            resize_lines(wide, to_width, 1, to_width, height, made, 1, to_width, to_height);
        for (size_t i = 0; i < (size_t)to_height * (size_t)to_width; i++)
            made[i] = fminf(fmaxf(made[i], 0), 1);
    } else {
        free(made);
        made = NULL;
    }
    free(wide);
    return made;
}

static int check_mask(const float *mask, size_t values, struct error *error)
{
    for (size_t i = 0; i < values; i++)
        if (!isfinite(mask[i]))
            return error_set(error, ERROR_BAD_REQUEST, "mask has values that are no finite numbers");
    return 0;
}

int edit_by_mask_open(struct edit_by_mask *out, const uint8_t *picture, int picture_height, int picture_width,
                      const float *mask, int mask_height, int mask_width, int height, int width, struct error *error)
{
    *out = (struct edit_by_mask){.height = height, .width = width, .is_empty = true, .edit = -1};
    int code = check_mask(mask, (size_t)mask_height * (size_t)mask_width, error);
    if (code)
        return code;
    const struct box box = cropped_box(picture_height, picture_width, height, width);
    /* Of another size, as a loader gives where nothing is painted. */
    float *whole = resized_mask(mask, mask_width, mask_height, mask_width, picture_height, picture_width);
    out->kept = malloc(3 * (size_t)height * (size_t)width);
    if (whole)
        out->change = resized_mask(whole + (size_t)box.top * (size_t)picture_width + box.left, picture_width,
                                   box.height, box.width, height, width);
    free(whole);
    if (!out->kept || !out->change)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a mask of %d x %d pixels", width, height);
    for (size_t i = 0; i < (size_t)height * (size_t)width; i++)
        out->is_empty = out->is_empty && out->change[i] == 0;
    const size_t stride = 3 * (size_t)picture_width;
    const uint8_t *part = picture + (size_t)box.top * stride + 3 * (size_t)box.left;
    if (box.height != height || box.width != width)
        return bicubic_resize(part, stride, box.height, box.width, out->kept, height, width, error);
    for (int y = 0; y < height; y++)
        memcpy(out->kept + 3 * (size_t)y * (size_t)width, part + (size_t)y * stride, 3 * (size_t)width);
    return 0;
}

void edits_by_mask_close(struct edit_by_mask *edits, int count)
{
    for (int i = 0; edits && i < count; i++) {
        free(edits[i].kept);
        free(edits[i].change);
    }
    free(edits);
}

float *edit_by_mask_cells(const struct edit_by_mask *edit)
{
    const int rows = edit->height / CELL_PIXELS, columns = edit->width / CELL_PIXELS;
    float *cells = calloc((size_t)rows * (size_t)columns, sizeof *cells);
    for (int y = 0; cells && y < edit->height; y++)
        for (int x = 0; x < edit->width; x++)
            if (edit->change[(size_t)y * (size_t)edit->width + (size_t)x] > 0)
                cells[y / CELL_PIXELS * columns + x / CELL_PIXELS] = 1;
    return cells;
}

void edit_by_mask_lay_over(const struct edit_by_mask *edit, const uint8_t *pixels, uint8_t *out)
{
    for (size_t i = 0; i < (size_t)edit->height * (size_t)edit->width; i++) {
        const float change = edit->change[i], stays = 1 - change;
        for (size_t c = 0; c < 3; c++) {
            const float kept = (float)edit->kept[3 * i + c] * stays, made = (float)pixels[3 * i + c] * change;
            out[3 * i + c] = (uint8_t)rintf(kept + made);
        }
    }
}
