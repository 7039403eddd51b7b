/* conv_bf16.h: convolutions where products run in bf16. */
#ifndef LANCE_CPU_CONV_BF16_H
#define LANCE_CPU_CONV_BF16_H

#include "kernels/cpu/conv_gather.h"

/* Panels of the weights, and the convolution. `repack` fills some taps of one panel of 16 output channels. */
size_t conv_bf16_panel(const struct conv *c); /* numbers of one panel */
void conv_bf16_repack(const struct conv *c, size_t first_tap, size_t taps, size_t panel);
void conv_bf16(struct cpu *cpu, const struct conv_gather *g);

#endif
