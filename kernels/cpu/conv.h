/* conv.h: what conv.c and conv_bf16.c share: an opened convolution, and the pixels under its taps. */
#ifndef LANCE_CPU_CONV_H
#define LANCE_CPU_CONV_H

#include "kernels/cpu/cpu.h"

struct conv {
    int out_channels, in_channels;
    int kernel_t, kernel_h, kernel_w;
    float *panels; /* [out_channels / 16, rounded up][kernel_t, kernel_h, kernel_w, in_channels][16]; NULL in bf16 */
    bf16 *rounded; /* panels of bf16.h whose depth is [kernel_t, kernel_h, kernel_w][in_channels, up to a whole step] */
    float *bias;   /* float32 or NULL */
    size_t bytes;
};

/* A call with what follows from it. */
struct conv_gather {
    const struct conv *conv;
    const struct conv_call *call;
    int context;             /* frames in front of x */
    int frames, rows, columns; /* of the output */
    int in_rows, in_columns; /* input rows and columns as the taps see them (after upsampling) */
    int first_tap_t;         /* time taps before this one see only zero frames */
};

/* The channels of an input pixel, `frame` counted from x's first one, rows and columns as the taps see them; NULL in the
 * padding. */
const float *conv_pixel(const struct conv_gather *g, int frame, int row, int column);

/* conv_bf16.c: panels of the weights, and the convolution. `repack` fills one panel of 16 output channels. */
size_t conv_bf16_panel(const struct conv *c); /* numbers of one panel */
void conv_bf16_repack(const struct conv *c, const struct conv_source *source, size_t panel);
void conv_bf16(struct cpu *cpu, const struct conv_gather *g);

#endif
