/* search.c: see search.h.
 *
 * The error of a layer is that of x' = x / s through the rounded W' = round(W s), against x through W: x (W'/s - W)^T.
 * So each block of rows is one product of the sample with the block's own error, and never needs the layer as a whole.
 * Blocks are summed in their order, so that threads change nothing.
 */
#include "tools/lance-quant/search.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/noise.h"
#include "base/parallel.h"

enum { SAMPLES = 512, SEED = 0xC0DE, BLOCK_ROWS = 64 };

static const float smallest = 1e-5f; /* of activations, weights and scales */

struct trial {
    const struct search *search;
    const struct matrix *matrix;
    const float *sample; /* [SAMPLES, in_features] */
    const float *scale;  /* [in_features] */
    double *block_sums;  /* of squared errors */
};

/* What rounding changes in `rows` rows from `first` on: round(W s) / s - W. `row` is a row's room. */
static void change_of(const struct trial *trial, int first, int rows, float *change, float *row)
{
    const int width = trial->matrix->in_features;
    for (int r = 0; r < rows; r++, change += width) {
        matrix_row(trial->matrix, first + r, row);
        for (int i = 0; i < width; i++)
            change[i] = row[i] * trial->scale[i];
        codes_round(&trial->search->form, change, width, change);
        for (int i = 0; i < width; i++)
            change[i] = change[i] / trial->scale[i] - row[i];
    }
}

/* Block `item` of rows of the matrix on trial. */
static int try_block(void *context, int item)
{
    const struct trial *trial = context;
    const int width = trial->matrix->in_features, first = item * BLOCK_ROWS, left = trial->matrix->out_features - first;
    const int rows = left < BLOCK_ROWS ? left : BLOCK_ROWS;
    const size_t change_size = (size_t)rows * (size_t)width, out_size = (size_t)SAMPLES * (size_t)rows;
    float *change = calloc(change_size + out_size + (size_t)width, sizeof *change);
    if (change == NULL)
        return ERROR_NO_MEMORY;
    float *out = change + change_size;
    double sum = 0;
    change_of(trial, first, rows, change, out + out_size);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, SAMPLES, rows, width, 1, trial->sample, width, change, width,
                0, out, rows);
    for (size_t i = 0; i < out_size; i++)
        sum += (double)out[i] * (double)out[i];
    trial->block_sums[item] = sum;
    free(change);
    return 0;
}

static int blocks_of(const struct matrix *matrix)
{
    return (matrix->out_features + BLOCK_ROWS - 1) / BLOCK_ROWS;
}

/* The mean squared error of each layer's outputs, summed over the layers. */
static int try_scale(const struct search *search, const float *sample, const float *scale, double *block_sums,
                     double *out)
{
    *out = 0;
    for (int m = 0; m < search->count; m++) {
        const struct matrix *matrix = &search->matrices[m];
        struct trial trial = {search, matrix, sample, scale, block_sums};
        const int blocks = blocks_of(matrix), status = parallel_run(blocks, search->threads, try_block, &trial);
        if (status != 0)
            return status;
        double sum = 0;
        for (int i = 0; i < blocks; i++)
            sum += block_sums[i];
        *out += sum / ((double)SAMPLES * matrix->out_features);
    }
    return 0;
}

/* The largest size in each column, averaged over the layers. */
static void column_sizes(const struct search *search, float *row, float *sizes)
{
    const int width = search->matrices[0].in_features;
    float *largest = row + width;
    memset(sizes, 0, sizeof *sizes * (size_t)width);
    for (int m = 0; m < search->count; m++) {
        memset(largest, 0, sizeof *largest * (size_t)width);
        for (int r = 0; r < search->matrices[m].out_features; r++) {
            matrix_row(&search->matrices[m], r, row);
            for (int i = 0; i < width; i++)
                largest[i] = fmaxf(largest[i], fabsf(row[i]));
        }
        for (int i = 0; i < width; i++)
            sizes[i] += fmaxf(largest[i], smallest) / (float)search->count;
    }
}

/* activation^alpha / weight^(1 - alpha), so scaled that the smallest and the largest are as far from 1. */
static void scale_of(const float *mean_abs, const float *sizes, int width, float alpha, float *scale)
{
    float low = INFINITY, high = 0;
    for (int i = 0; i < width; i++) {
        scale[i] = fmaxf(powf(fmaxf(mean_abs[i], smallest), alpha) / powf(sizes[i], 1 - alpha), smallest);
        low = fminf(low, scale[i]);
        high = fmaxf(high, scale[i]);
    }
    const float middle = sqrtf(high * low);
    for (int i = 0; i < width; i++)
        scale[i] /= middle;
}

int search_scale(const struct search *search, float *scale, struct error *error)
{
    const int width = search->matrices[0].in_features;
    const size_t columns = (size_t)width;
    int blocks = 0, status = 0;
    for (int m = 0; m < search->count; m++)
        blocks = blocks_of(&search->matrices[m]) > blocks ? blocks_of(&search->matrices[m]) : blocks;
    float *sample = malloc(sizeof *sample * SAMPLES * columns), *sizes = malloc(3 * sizeof *sizes * columns);
    double *sums = malloc(sizeof *sums * (size_t)blocks);
    if (!sample || !sizes || !sums)
        status = ERROR_NO_MEMORY;
    if (status == 0) {
        noise_torch_cpu(SEED, sample, SAMPLES * columns);
        for (size_t i = 0; i < SAMPLES * columns; i++)
            sample[i] *= fmaxf(search->mean_abs[i % columns], smallest);
        column_sizes(search, sizes + columns, sizes);
    }
    double squared_error, least = 0;
    int best = 0;
    for (int step = 0; step <= SEARCH_GRID && status == 0; step++) {
        scale_of(search->mean_abs, sizes, width, (float)step / SEARCH_GRID, scale);
        status = try_scale(search, sample, scale, sums, &squared_error);
        if (status == 0 && (step == 0 || squared_error < least)) {
            least = squared_error;
            best = step;
        }
    }
    if (status == 0)
        scale_of(search->mean_abs, sizes, width, (float)best / SEARCH_GRID, scale);
    free(sample);
    free(sizes);
    free(sums);
    return status ? error_set(error, status, "lance-quant: no memory for a search of %d columns", width) : 0;
}
