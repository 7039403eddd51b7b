/* few_rows_avx2.h: what micro_avx2.c takes from few_rows_avx2.c. */
#ifndef LANCE_CPU_FEW_ROWS_AVX2_H
#define LANCE_CPU_FEW_ROWS_AVX2_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/formats/weights.h"

/* multiply_codes of micro.h, up to six rows. */
bool avx2_multiply_codes(const struct linear_source *w, int column, int first, int depth, int rows, const float *strip,
                         float *c, size_t c_row);

#endif
