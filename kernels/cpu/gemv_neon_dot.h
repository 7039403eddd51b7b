/* gemv_neon_dot.h: products of one row with 4-bit weights by ARM's dot-product instruction, for micro_neon.c, which
 * asks first whether the processor has it. */
#ifndef LANCE_CPU_GEMV_NEON_DOT_H
#define LANCE_CPU_GEMV_NEON_DOT_H

#include "kernels/cpu/micro.h"

/* The matrix is one that gemv_of_codes() (digits.h) takes. */
void neon_dot_gemv_codes(const struct gemv *g, int first_column, int columns);

#endif
