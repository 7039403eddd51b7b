/* product.cuh: bf16 matrix products on the device; the multiplying half of linear.cu. */
#ifndef LANCE_CUDA_PRODUCT_CUH
#define LANCE_CUDA_PRODUCT_CUH

#include "kernels/cuda/state.cuh"

/* out [rows, columns] = left [rows, depth] right^T + bias, or out += that when `add`. Sums are float32 and rounded to
 * bf16 once, after bias and addition.
 *   left   bf16, row i at left + i * left_stride; any alignment of a bf16 and any depth
 *   right  bf16 [columns, depth], row j at right + j * right_stride: 16-byte aligned, right_stride a multiple of 32
 *          that is at least depth, zeros from depth on up to the next multiple of 32
 *   bias   float32 [columns] or NULL; bias_bf16 the same values rounded, for cuBLASLt
 *   out    bf16, row i at out + i * out_stride */
struct product {
    const bf16 *left;
    int left_stride;
    const bf16 *right;
    int right_stride;
    int rows, columns, depth;
    const float *bias;
    const bf16 *bias_bf16;
    bf16 *out;
    int out_stride;
    bool add;
};

/* Enqueue on the state's compute stream: through cuBLASLt where it is loaded and takes the
 * problem, else product_own. */
void product_run(struct cuda_state *state, const struct product *product);

/* Always the kernel of product.cu. */
void product_own(struct cuda_state *state, const struct product *product);

#endif
