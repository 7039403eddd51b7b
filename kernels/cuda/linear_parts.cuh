/* linear_parts.cuh: what linear.cu is made of: packing, the products of few and of some rows, and
 * decoding for the product of many. */
#ifndef LANCE_CUDA_LINEAR_PARTS_CUH
#define LANCE_CUDA_LINEAR_PARTS_CUH

#include "kernels/cuda/matrix.cuh"
#include "kernels/kernels.h"

struct cuda_state;

/* Two weights from the codes in the low bytes of a word, and the pair of their group. */
__device__ inline uint32_t two_bytes(uint32_t codes, float2 pair)
{
    return pack_act2(fmaf((float)(codes & 255), pair.x, pair.y), fmaf((float)(codes >> 8 & 255), pair.x, pair.y));
}

enum { FEW_ROWS = 16 };

/* Products of the same x with matrices of the same layout, columns and group_size. */
struct few_rows_group {
    int count;
    bool swiglu;              /* two matrices of the same size, one result: part[0].y = silu(first) * second */
    const float *norm_weight; /* not NULL: the products are of x normed (rms_norm); see few_rows_norm_fits */
    float norm_eps;
    uint32_t span_of_tile;    /* set by linear_few_rows: span_factor */
    struct {
        struct matrix w;
        bf16 *y;
        const int *grown; /* growing.cuh */
        int first_block; /* of the launch */
    } part[LINEAR_GROUP];
};

/* y [rows, out_features] = x [rows, in_features] W^T + bias, or y += that, for rows <= FEW_ROWS: every weight is read
 * once, straight from its packed form, and all matrices in one launch. linear_few_rows.cu */
void linear_few_rows(struct cuda_state *state, struct few_rows_group *group, const bf16 *x, int rows, bool add);

/* Whether it can norm the rows of x itself, and make a swiglu of two products: the bytes are those of the operators one
 * by one. */
bool few_rows_norm_fits(const struct matrix *w, const bf16 *x, const float *weight, int rows);
bool few_rows_swiglu_fits(const struct matrix *w);

/* One of the products of the same x with 4-bit matrices of the same layout, columns and group_size. */
struct some_rows_part {
    struct matrix w;
    bf16 *y;
    /* Set by linear_some_rows: its first block of the launch, and its first counter; how many blocks share the columns
     * of each tile. */
    int first_block, first_tile, splits;
};

/* y [rows, out_features] = x [rows, in_features] W^T + bias, or y += that, for any rows, and for each of `count` parts,
 * in one launch: the codes are decoded on their way to the tensor cores. Only where some_rows_fits. A part's bytes are
 * those of it alone. linear_some_rows.cu */
void linear_some_rows(struct cuda_state *state, const struct some_rows_part *parts, int count, const bf16 *x, int rows,
                      bool add);
bool some_rows_fits(const struct matrix *w, const bf16 *x);

/* Rows first .. first + rows - 1 of a quantised matrix as bf16 [rows, w->columns]; `first` is a multiple of 16.
 * dequantise.cu `to` has room for the rows rounded up to 16. Enqueued on `stream`. */
void dequantise(struct cuda_state *state, cudaStream_t stream, const struct matrix *w, int first, int rows, bf16 *to);

/* Some rows of a checkpoint's matrix, copied to the device as they are in the file. */
struct raw_rows {
    enum weight_format format;
    bool has_byte_codes;    /* weight_is_of_bytes(format), which a kernel cannot ask */
    int first, rows;        /* which rows of the matrix; `first` is a multiple of 16 */
    int in_features;
    int group_size;
    const uint8_t *data;
    const bf16 *scales; /* NULL: scales_fp8 */
    const uint8_t *scales_fp8;
    const uint8_t *zeros;
    const bf16 *offsets;
    float tensor_scale;
};

/* Write the raw rows to their place in the packed matrix (memory that is zero so far). pack.cu */
void pack_rows(struct cuda_state *state, const struct raw_rows *raw, const struct matrix *w);

#endif
