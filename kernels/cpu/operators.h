/* operators.h: the operators by file; each function fills its pointers of struct kernels. */
#ifndef LANCE_CPU_OPERATORS_H
#define LANCE_CPU_OPERATORS_H

#include "kernels/kernels.h"

void cpu_memory_fill(struct kernels *k);      /* memory.c: device memory and transfers */
void cpu_linear_fill(struct kernels *k);      /* linear.c */
void cpu_attention_fill(struct kernels *k);   /* attention.c */
void cpu_conv_fill(struct kernels *k);        /* conv.c */
void cpu_elementwise_fill(struct kernels *k); /* elementwise.c */
void cpu_resample_fill(struct kernels *k);    /* resample.c */

#endif
