/* operators.cuh: the operators by file; each function fills its pointers of struct kernels. */
#ifndef LANCE_CUDA_OPERATORS_CUH
#define LANCE_CUDA_OPERATORS_CUH

#include "kernels/kernels.h"

void cuda_elementwise_fill(struct kernels *k); /* elementwise.cu: swiglu, silu, gelu, add, add_row */

#endif
