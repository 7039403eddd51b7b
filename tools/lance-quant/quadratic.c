/* quadratic.c: see quadratic.h.
 *
 * Feedback is that of GPTQ (Frantar et al., 2022) within a block: with H = E[x x^T] and the upper U of H^-1 = U^T U,
 * the change d of column i is best made good by taking d U_ij / U_ii from each later column j.
 */
#include "tools/lance-quant/quadratic.h"

#include <stdlib.h>

#include "base/parallel.h"

enum { BLOCK = STATISTICS_BLOCK };

/* LAPACK's by their own names: every OpenBLAS has them, its C header is a package more. Columns first, so that "L"
 * is the upper half of rows. dpotrf: a positive definite matrix into its triangle; dpotri: that triangle into the
 * inverse. */
void dpotrf_(const char *half, const int *n, double *matrix, const int *stride, int *status);
void dpotri_(const char *half, const int *n, double *matrix, const int *stride, int *status);

/* The upper triangle U of the inverse of a matrix [columns, BLOCK], inverse = U^T U, in its place; false: it has
 * none. */
static bool triangle_of_inverse(double *matrix, int columns)
{
    const int stride = BLOCK;
    int status;
    dpotrf_("L", &columns, matrix, &stride, &status);
    if (status == 0)
        dpotri_("L", &columns, matrix, &stride, &status);
    if (status == 0)
        dpotrf_("L", &columns, matrix, &stride, &status);
    return status == 0;
}

static const float damping = 0.01f; /* of each input by itself: noise that is related to no other */

/* Columns by their place on the diagonal, largest first; of the same size by number. */
static void order_columns(const float *form, int columns, uint8_t *order)
{
    for (int i = 0; i < columns; i++) {
        int at = i;
        for (; at > 0 && form[order[at - 1] * BLOCK + order[at - 1]] < form[i * BLOCK + i]; at--)
            order[at] = order[at - 1];
        order[at] = (uint8_t)i;
    }
}

/* Fills `feedback`; zeros where the inputs are too much alike for it. */
static void find_feedback(const float *form, int columns, const uint8_t *order, float *feedback)
{
    double inverse[BLOCK * BLOCK] = {0}, mean = 0;
    for (int i = 0; i < columns; i++)
        mean += (double)form[i * BLOCK + i] / columns;
    for (int i = 0; i < columns; i++)
        for (int j = 0; j < columns; j++) {
            const double value = form[order[i] * BLOCK + order[j]];
            inverse[i * BLOCK + j] = i == j ? value * (1 + (double)damping) + 1e-6 * mean + 1e-30 : value;
        }
    if (!triangle_of_inverse(inverse, columns))
        return;
    for (int i = 0; i < columns; i++)
        for (int j = i + 1; j < columns; j++)
            feedback[i * BLOCK + j] = (float)(inverse[i * BLOCK + j] / inverse[i * BLOCK + i]);
}

struct opening {
    struct quadratic *q;
    const float *moments, *scale;
};

static int open_block(void *context, int b)
{
    const struct opening *opening = context;
    const struct quadratic *q = opening->q;
    const size_t at = (size_t)b * BLOCK * BLOCK;
    const float *scale = opening->scale + (size_t)b * BLOCK;
    const int columns = quadratic_columns(q, b);
    float *form = q->form + at;
    for (int i = 0; i < columns; i++)
        for (int j = 0; j < columns; j++)
            form[i * BLOCK + j] = opening->moments[at + (size_t)(i * BLOCK + j)] / (scale[i] * scale[j]);
    order_columns(form, columns, q->order + (size_t)b * BLOCK);
    find_feedback(form, columns, q->order + (size_t)b * BLOCK, q->feedback + at);
    return 0;
}

int quadratic_open(struct quadratic *out, const float *moments, const float *scale, int width, int threads,
                   struct error *error)
{
    const int blocks = statistics_blocks(width);
    const size_t size = (size_t)blocks * BLOCK * BLOCK;
    *out = (struct quadratic){width, blocks, calloc(size, sizeof(float)), calloc(size, sizeof(float)),
                              calloc((size_t)blocks, BLOCK)};
    if (!out->form || !out->feedback || !out->order) {
        quadratic_close(out);
        return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for the errors of %d columns", width);
    }
    struct opening opening = {out, moments, scale};
    return parallel_run(blocks, threads, open_block, &opening);
}

void quadratic_close(struct quadratic *quadratic)
{
    free(quadratic->form);
    free(quadratic->feedback);
    free(quadratic->order);
    *quadratic = (struct quadratic){0};
}

double quadratic_cost(const struct quadratic *quadratic, const float *change)
{
    double cost = 0;
    for (int b = 0; b < quadratic->blocks; b++) {
        const float *d = change + b * BLOCK;
        for (int i = 0; i < quadratic_columns(quadratic, b); i++) {
            const float *row = quadratic_row(quadratic, b, i);
            float sum = 0;
            for (int j = 0; j < quadratic_columns(quadratic, b); j++)
                sum += row[j] * d[j];
            cost += (double)d[i] * (double)sum;
        }
    }
    return cost;
}
