/* linear_bf16.h: products with a matrix where they run in bf16. */
#ifndef LANCE_CPU_LINEAR_BF16_H
#define LANCE_CPU_LINEAR_BF16_H

#include "kernels/cpu/cpu.h"

/* y [rows, out] = x [rows, in] W^T + bias (NULL: none), or y += that when `add`. */
void linear_bf16(struct cpu *cpu, const struct linear_source *w, const float *bias, const float *x, int rows, float *y,
                 bool add);

#endif
