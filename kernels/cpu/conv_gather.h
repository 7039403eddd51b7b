/* conv_gather.h: what convolutions in float32 and in bf16 share: an opened convolution, and
 * the pixels under its taps. */
#ifndef LANCE_CPU_CONV_GATHER_H
#define LANCE_CPU_CONV_GATHER_H

#include "kernels/cpu/cpu.h"

struct conv {
    int out_channels, in_channels;
    int kernel_t, kernel_h, kernel_w;
    struct conv_source source; /* of what is not in panels yet; its pointers are borrowed */
    int first_laid_out;        /* time taps from this one on are in panels; kernel_t: none is */
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

/* The channels of an input pixel, `frame` counted from x's first one, rows and columns as the taps see
 * them; NULL in the padding. */
const float *conv_pixel(const struct conv_gather *g, int frame, int row, int column);

#endif
