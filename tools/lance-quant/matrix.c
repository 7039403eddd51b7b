/* matrix.c: see matrix.h. */
#include "tools/lance-quant/matrix.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

#include "kernels/formats/numbers.h"

int matrix_open(struct matrix *matrix, const struct tensor_view *tensor, struct error *error)
{
    if (tensor->dtype == DTYPE_U8 || tensor->dtype == DTYPE_U32)
        return error_set(error, ERROR_BAD_FILE,
                         "%s holds codes: this checkpoint is quantised already; take the release in bf16 or "
                         "float32",
                         tensor->name);
    if ((tensor->dtype != DTYPE_BF16 && tensor->dtype != DTYPE_F32 && tensor->dtype != DTYPE_F16) ||
        tensor->dimensions != 2 || tensor->shape[0] == 0 || tensor->shape[1] == 0 || tensor->shape[0] > INT_MAX ||
        tensor->shape[1] > INT_MAX)
        return error_set(error, ERROR_BAD_FILE, "%s is no matrix of floating-point numbers", tensor->name);
    *matrix = (struct matrix){tensor, (int)tensor->shape[0], (int)tensor->shape[1]};
    return 0;
}

void matrix_row(const struct matrix *matrix, int row, float *out)
{
    const size_t width = (size_t)matrix->in_features;
    const struct tensor_view *tensor = matrix->tensor;
    struct tensor_view one = {.name = tensor->name,
                              .dtype = tensor->dtype,
                              .dimensions = 1,
                              .shape = {width},
                              .data = (const char *)tensor->data + (size_t)row * width * dtype_bytes(tensor->dtype),
                              .bytes = width * dtype_bytes(tensor->dtype)};
    tensor_to_float(&one, out, NULL); /* its type was looked at by matrix_open */
    if (tensor->dtype != DTYPE_BF16)
        for (size_t i = 0; i < width; i++)
            out[i] = bf16_to_float(float_to_bf16(out[i]));
}

int matrix_check(const struct matrix *matrix, struct error *error)
{
    float *row = malloc(sizeof *row * (size_t)matrix->in_features);
    if (!row)
        return error_set(error, ERROR_NO_MEMORY, "%s: no memory to look at it", matrix->tensor->name);
    int code = 0;
    for (int r = 0; r < matrix->out_features && code == 0; r++) {
        matrix_row(matrix, r, row);
        float sum = 0; /* of values times 0: 0, or no number */
        for (int i = 0; i < matrix->in_features; i++)
            sum += row[i] * 0.0f;
        if (isnan(sum))
            code = error_set(error, ERROR_BAD_FILE, "%s: a weight of row %d is infinite or no number: the file is "
                             "damaged; fetch it again", matrix->tensor->name, r);
    }
    free(row);
    return code;
}
