/* conv_parts.cuh: what conv.cu (weights and the choice of a kernel) and conv_product.cu (the kernel for
 * tensor cores) share: one convolution, worked out as a product.
 *
 * Rows of the product are output pixels, its columns output channels, its depth is
 * (time, row, column, in_channel) of the kernel's taps. Internal to kernels/cuda. */
#ifndef LANCE_CUDA_CONV_PARTS_CUH
#define LANCE_CUDA_CONV_PARTS_CUH

#include <cuda_runtime.h>

#include "kernels/cuda/state.cuh"

/* Passed to the kernels by value. */
struct conv_problem {
    const bf16 *x, *past;      /* [frames, height, width, in_channels]; `past` lies before x in time */
    const bf16 *weight;        /* [out_channels, kernel_t, kernel_h, kernel_w, in_channels] */
    const float *bias;                  /* [out_channels] or NULL */
    bf16 *out;                 /* [out_frames, out_height, out_width, out_channels] */
    int in_channels, out_channels;
    int kernel_t, kernel_h, kernel_w;
    int height, width;                  /* of x */
    int seen_height, seen_width;        /* of x as the taps see it: doubled when upsampled */
    int upsampled;                      /* 1 when x is read at half the coordinates, else 0 */
    int context;                        /* frames in front of x, zero frames and past ones */
    int past_frames;                    /* of these, the last ones, that `past` has */
    int stride_t, stride_h, stride_w;
    int pad_top, pad_left;
    int out_height, out_width;
    int pixels;                         /* out_frames * out_height * out_width */
    bool add;
};

/* Where the tap (0, 0, 0) of an output pixel lies, in frames of x (past ones are negative),
 * rows and columns as seen. */
struct conv_corner {
    int frame, row, column;
};

__device__ inline conv_corner conv_corner_of(const conv_problem &p, int pixel)
{
    int plane = p.out_height * p.out_width;
    return {pixel / plane * p.stride_t - p.context, pixel % plane / p.out_width * p.stride_h - p.pad_top,
            pixel % p.out_width * p.stride_w - p.pad_left};
}

/* The channels under a tap, or NULL where it sees padding. Offsets pass 2^31 elements in a long video. */
__device__ inline const bf16 *conv_under_tap(const conv_problem &p, const conv_corner &corner, int t, int h, int w)
{
    int frame = corner.frame + t, row = corner.row + h, column = corner.column + w;
    if (frame < -p.past_frames || row < 0 || row >= p.seen_height || column < 0 || column >= p.seen_width)
        return nullptr;
    const bf16 *base = p.x;
    if (frame < 0) {
        base = p.past;
        frame += p.past_frames;
    }
    long long at = ((long long)frame * p.height + (row >> p.upsampled)) * p.width + (column >> p.upsampled);
    return base + at * p.in_channels;
}

/* The first tap in time under which the output frame of `pixel`, and thus every earlier one,
 * sees more than zero frames. */
__device__ inline int conv_first_tap(const conv_problem &p, int pixel)
{
    int zeros = p.context - p.past_frames - pixel / (p.out_height * p.out_width) * p.stride_t;
    return zeros > 0 ? zeros : 0;
}

/* Whether the tensor cores' kernel takes this problem: channels and addresses that its copies
 * can follow, and enough work. */
bool conv_product_fits(const conv_problem *p);
/* Enqueue it. */
void conv_product_run(struct cuda_state *state, const conv_problem *p);

#endif
