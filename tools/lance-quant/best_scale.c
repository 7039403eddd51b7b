/* best_scale.c: see best_scale.h.
 *
 * Tried is x^a / w^b for each column, x being the root of the mean square of the input and w the largest weight: a from
 * 0 to 1, with b of 0 and of 1 - a (the published form); and no scale at all, which is a = b = 0.
 */
#include "tools/lance-quant/best_scale.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "tools/lance-quant/layout.h"
#include "tools/lance-quant/row_codes.h"

enum { STEPS = 10, TRIES = 2 * STEPS + 1, SAMPLED_ROWS = 96 };

static const float smallest = 1e-5f;

/* Rows of all matrices that take part, and what they cost with the scale on trial. */
struct trial {
    const struct best_scale *search;
    const float *scale;
    struct row_rounding rounding; /* but for the form, which is each matrix's */
    double costs[3 * SAMPLED_ROWS];
};

static int rows_of(const struct matrix *matrix)
{
    return matrix->out_features < SAMPLED_ROWS ? matrix->out_features : SAMPLED_ROWS;
}

/* Row `item` of those that take part, out of all matrices, as it is without a scale; and its matrix's number. */
static const struct matrix *sampled_row(const struct best_scale *search, int item, float *row)
{
    const struct matrix *matrix = search->matrices;
    while (item >= rows_of(matrix))
        item -= rows_of(matrix++);
    matrix_row(matrix, (int)((int64_t)item * matrix->out_features / rows_of(matrix)), row);
    return matrix;
}

static int try_row(void *context, int item)
{
    struct trial *trial = context;
    const size_t width = (size_t)trial->search->matrices[0].in_features;
    struct row_room room;
    struct error ignored;
    if (row_room_open(&room, (int)width, &ignored) != 0)
        return ERROR_NO_MEMORY;
    float *row = room.row;
    const struct matrix *matrix = sampled_row(trial->search, item, row);
    for (size_t i = 0; i < width; i++)
        row[i] *= trial->scale[i];
    struct row_rounding rounding = trial->rounding;
    rounding.form = layout_recipe_form(trial->search->recipe, matrix);
    if (rounding.form.format != WEIGHT_BF16) {
        row_codes(&rounding, row, &room, NULL);
        for (size_t i = 0; i < width; i++)
            row[i] = room.rounded[i] - row[i];
        trial->costs[item] = quadratic_cost(rounding.q, row) / rows_of(matrix);
    }
    row_room_close(&room);
    return 0;
}

/* The largest weight of each column among the rows that take part, averaged over the matrices. */
static void column_sizes(const struct best_scale *search, int rows, float *row, float *sizes)
{
    const int width = search->matrices[0].in_features;
    float *largest = row + width;
    const struct matrix *of = NULL;
    memset(sizes, 0, sizeof *sizes * (size_t)width);
    memset(largest, 0, sizeof *largest * (size_t)width);
    for (int item = 0; item <= rows; item++) {
        const struct matrix *matrix = item < rows ? sampled_row(search, item, row) : NULL;
        if (matrix != of)
            for (int i = 0; i < width && of; i++) {
                sizes[i] += fmaxf(largest[i], smallest) / (float)search->count;
                largest[i] = 0;
            }
        of = matrix;
        for (int i = 0; i < width && matrix; i++)
            largest[i] = fmaxf(largest[i], fabsf(row[i]));
    }
}

static void scale_of(const struct best_scale *search, const float *sizes, int number, float *scale)
{
    const int width = search->matrices[0].in_features;
    const float a = (float)(number / 2) / STEPS, b = number % 2 ? 1 - a : 0;
    float low = INFINITY, high = 0;
    for (int i = 0; i < width; i++) {
        const float square = search->moments[(size_t)i * STATISTICS_BLOCK + (size_t)(i % STATISTICS_BLOCK)];
        scale[i] = fmaxf(powf(fmaxf(sqrtf(square), smallest), a) / powf(sizes[i], b), smallest);
        low = fminf(low, scale[i]);
        high = fmaxf(high, scale[i]);
    }
    const float middle = sqrtf(high * low);
    for (int i = 0; i < width; i++)
        scale[i] /= middle;
}

/* The largest weight that takes part, scaled. */
static float largest_of(const struct best_scale *search, const float *sizes, const float *scale)
{
    float largest = 0;
    for (int i = 0; i < search->matrices[0].in_features; i++)
        largest = fmaxf(largest, sizes[i] * scale[i]);
    return largest * (float)search->count;
}

static int try_scale(struct trial *trial, const float *sizes, int rows, double *cost, struct error *error)
{
    const struct best_scale *search = trial->search;
    const int width = search->matrices[0].in_features;
    struct quadratic q;
    int code = quadratic_open(&q, search->moments, trial->scale, width, search->threads, error);
    if (code != 0)
        return code;
    trial->rounding =
        (struct row_rounding){.ingredients = search->recipe->ingredients, .q = &q,
                              .tensor_scale = row_codes_tensor_scale(largest_of(search, sizes, trial->scale))};
    *cost = 0;
    if (parallel_run(rows, search->threads, try_row, trial) != 0)
        code = error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for a search of %d columns", width);
    for (int r = 0; r < rows; r++)
        *cost += trial->costs[r];
    quadratic_close(&q);
    return code;
}

int best_scale_find(const struct best_scale *search, float *scale, struct error *error)
{
    const size_t width = (size_t)search->matrices[0].in_features;
    struct trial *trial = calloc(1, sizeof *trial);
    float *sizes = malloc(3 * sizeof *sizes * width);
    int code = !trial || !sizes ? ERROR_NO_MEMORY : 0, rows = 0, best = 0;
    double cost, least = 0;
    for (int m = 0; m < search->count; m++)
        rows += rows_of(&search->matrices[m]);
    if (code == 0) {
        column_sizes(search, rows, sizes + width, sizes);
        trial->search = search;
        trial->scale = scale;
    } else {
        error_set(error, code, "lance-quant: no memory for a search of %zu columns", width);
    }
    for (int number = 0; number < TRIES && code == 0; number++) {
        scale_of(search, sizes, number, scale);
        code = try_scale(trial, sizes, rows, &cost, error);
        if (number == 0 || cost < least) {
            least = cost;
            best = number;
        }
    }
    if (code == 0)
        scale_of(search, sizes, best, scale);
    free(trial);
    free(sizes);
    return code;
}
