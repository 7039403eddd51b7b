/* matrix.h: a linear layer's weights as the source checkpoint has them. They stay in the mapped file; rows are read
 * when they are needed.
 */
#ifndef LANCE_QUANT_MATRIX_H
#define LANCE_QUANT_MATRIX_H

#include "protocol/safetensors.h"

struct matrix {
    const struct tensor_view *tensor; /* F32, F16 or BF16, [out_features, in_features] */
    int out_features, in_features;
};

/* ERROR_BAD_FILE when the tensor is no matrix of such numbers. */
int matrix_open(struct matrix *matrix, const struct tensor_view *tensor, struct error *error);

/* A row as float32, rounded to bf16 first: what the release in bf16 has, and what the published files were made from.
 */
void matrix_row(const struct matrix *matrix, int row, float *out);

/* Look at every weight: a code hides what is no number. ERROR_BAD_FILE, ERROR_NO_MEMORY. */
int matrix_check(const struct matrix *matrix, struct error *error);

#endif
