/* search.c: see search.h.
 *
 * The error of a layer is that of x' = x / s through the rounded W' = round(W s), against x through W: x (W'/s - W)^T.
 * So each block of rows is one product of the sample with the block's own error, and never needs the layer as a whole.
 * Blocks are summed in their order, so that threads change nothing.
 *
 * Nearly all of the time goes into these products. So every scale is first tried with some of the blocks, spread over
 * the layers; one that does worse there than the best by SURE times what the spread of the blocks' differences lets
 * expect of chance is not tried with the others.
 */
#include "tools/lance-quant/search.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/noise.h"
#include "base/parallel.h"

enum { SAMPLES = 512, SEED = 0xC0DE, BLOCK_ROWS = 64, TRIES = SEARCH_GRID + 1 };
enum { FEWEST_BLOCKS = 12, MOST_APART = 8, SURE = 6 }; /* blocks to be tried first, and the distance between them */

static const float smallest = 1e-5f; /* of activations, weights and scales */

struct trial {
    const struct search *search;
    const float *sample; /* [SAMPLES, in_features] */
    float *scale;        /* [in_features]: on trial */
    int blocks;          /* of all matrices */
    int apart;           /* every so many blocks are tried first */
    bool all;            /* or the rest is */
    double *errors;      /* [blocks]: mean squared errors of the scale on trial, each for its part of its layer;
                          * below 0: not tried */
};

static int blocks_of(const struct matrix *matrix)
{
    return (matrix->out_features + BLOCK_ROWS - 1) / BLOCK_ROWS;
}

/* What rounding changes in `rows` rows from `first` on: round(W s) / s - W. `row` is a row's room. */
static void change_of(const struct trial *trial, const struct matrix *matrix, int first, int rows, float *change,
                      float *row)
{
    const int width = matrix->in_features;
    for (int r = 0; r < rows; r++, change += width) {
        matrix_row(matrix, first + r, row);
        for (int i = 0; i < width; i++)
            change[i] = row[i] * trial->scale[i];
        codes_round(&trial->search->form, change, width, change);
        for (int i = 0; i < width; i++)
            change[i] = change[i] / trial->scale[i] - row[i];
    }
}

/* Block `item` of all matrices' rows, when it is its turn. */
static int try_block(void *context, int item)
{
    const struct trial *trial = context;
    const struct matrix *matrix = trial->search->matrices;
    if (trial->errors[item] >= 0 || (!trial->all && item % trial->apart != 0))
        return 0;
    int block = item;
    for (; block >= blocks_of(matrix); matrix++)
        block -= blocks_of(matrix);
    const int width = matrix->in_features, first = block * BLOCK_ROWS, left = matrix->out_features - first;
    const int rows = left < BLOCK_ROWS ? left : BLOCK_ROWS;
    const size_t change_size = (size_t)rows * (size_t)width, out_size = (size_t)SAMPLES * (size_t)rows;
    float *change = malloc((change_size + out_size + (size_t)width) * sizeof *change);
    if (!change)
        return ERROR_NO_MEMORY;
    float *out = change + change_size;
    double sum = 0;
    change_of(trial, matrix, first, rows, change, out + out_size);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, SAMPLES, rows, width, 1, trial->sample, width, change, width,
                0, out, rows);
    for (size_t i = 0; i < out_size; i++)
        sum += (double)out[i] * (double)out[i];
    trial->errors[item] = sum / ((double)SAMPLES * matrix->out_features);
    free(change);
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

/* How much worse the blocks that both have tried make `errors` than `best`, as a multiple of what chance makes of
 * it. */
static double worse_by(const struct trial *trial, const double *errors, const double *best)
{
    const int n = (trial->blocks + trial->apart - 1) / trial->apart;
    double sum = 0, squares = 0;
    for (int b = 0; b < trial->blocks; b += trial->apart)
        sum += (errors[b] - best[b]) / n;
    for (int b = 0; b < trial->blocks; b += trial->apart)
        squares += (errors[b] - best[b] - sum) * (errors[b] - best[b] - sum) / (n - 1);
    return sum > 0 ? sum / sqrt(squares / n) : 0;
}

static double sum_of(const struct trial *trial, const double *errors, int apart)
{
    double sum = 0;
    for (int b = 0; b < trial->blocks; b += apart)
        sum += errors[b];
    return sum;
}

/* The number of the scale of `sizes` with the least error; errors [TRIES, blocks]. */
static int find_best(struct trial *trial, const float *sizes, double *errors, int *best)
{
    const struct search *search = trial->search;
    const size_t blocks = (size_t)trial->blocks;
    int first = 0, status = 0;
    *best = -1;
    for (size_t i = 0; i < TRIES * blocks; i++)
        errors[i] = -1;
    for (int t = 0; t < TRIES && status == 0; t++) {
        trial->errors = errors + (size_t)t * blocks;
        scale_of(search->mean_abs, sizes, search->matrices[0].in_features, (float)t / SEARCH_GRID, trial->scale);
        status = parallel_run(trial->blocks, search->threads, try_block, trial);
        if (status == 0 && sum_of(trial, trial->errors, trial->apart) <
                               sum_of(trial, errors + (size_t)first * blocks, trial->apart))
            first = t;
    }
    trial->all = true;
    for (int t = 0; t < TRIES && status == 0; t++) {
        trial->errors = errors + (size_t)t * blocks;
        if (trial->apart > 1 && worse_by(trial, trial->errors, errors + (size_t)first * blocks) > SURE)
            continue;
        scale_of(search->mean_abs, sizes, search->matrices[0].in_features, (float)t / SEARCH_GRID, trial->scale);
        status = parallel_run(trial->blocks, search->threads, try_block, trial);
        if (*best < 0 || sum_of(trial, trial->errors, 1) < sum_of(trial, errors + (size_t)*best * blocks, 1))
            *best = t;
    }
    return status;
}

int search_scale(const struct search *search, float *scale, struct error *error)
{
    const int width = search->matrices[0].in_features;
    const size_t columns = (size_t)width;
    struct trial trial = {.search = search, .scale = scale};
    int code = 0, best = 0;
    for (int m = 0; m < search->count; m++)
        trial.blocks += blocks_of(&search->matrices[m]);
    trial.apart = trial.blocks / FEWEST_BLOCKS < 1 ? 1 : trial.blocks / FEWEST_BLOCKS;
    trial.apart = trial.apart < MOST_APART ? trial.apart : MOST_APART;
    float *sample = malloc(sizeof *sample * SAMPLES * columns), *sizes = malloc(3 * sizeof *sizes * columns);
    double *errors = malloc(sizeof *errors * TRIES * (size_t)trial.blocks);
    if (!sample || !sizes || !errors)
        code = ERROR_NO_MEMORY;
    if (code == 0) {
        noise_torch_cpu(SEED, sample, SAMPLES * columns);
        for (size_t i = 0; i < SAMPLES * columns; i++)
            sample[i] *= fmaxf(search->mean_abs[i % columns], smallest);
        column_sizes(search, sizes + columns, sizes);
        trial.sample = sample;
        code = find_best(&trial, sizes, errors, &best);
    }
    if (code == 0)
        scale_of(search->mean_abs, sizes, width, (float)best / SEARCH_GRID, scale);
    free(sample);
    free(sizes);
    free(errors);
    return code ? error_set(error, code, "lance-quant: no memory for a search of %d columns", width) : 0;
}
