/* weights.h: how a checkpoint stores matrices and convolutions: what a backend opens, borrowed from the mapped file.
 * C and C++.
 *
 * A quantised matrix [out_features, in_features] is codes, and numbers that the codes of a group share: `group_size`
 * columns of a row, which divides the row. numbers.h has the numbers, group.h the codes and what they are worth.
 *
 *   format      codes                     of each group, [out, in/group]   a weight is
 *   AWQ_INT4    u8 [out, in/2]            scales bf16, zeros u8            (code - zero) * scale
 *   MLX_INT4    u8 [out, in/2]; in the    scales and offsets bf16          code * scale + offset
 *               file, u32 [out, in/8]
 *   NVFP4       u8 [out, in/2], E2M1      scales bf16, or, where there     level * scale * tensor_scale
 *                                         are none, scales_fp8 E4M3
 *   INT8        i8 [out, in]              scales bf16                      code * scale
 *   AWQ_INT8    u8 [out, in]: codes of 5  scales bf16, zeros u8            (code - zero) * scale
 *               to 8 bits, a byte each
 *   MLX_INT8    u8 [out, in]; in the      scales and offsets bf16          code * scale + offset
 *               file, u32 [out, in/4]
 * Of 4-bit codes the low nibble of a byte is the even column.
 */
#ifndef LANCE_FORMATS_WEIGHTS_H
#define LANCE_FORMATS_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum weight_format {
    WEIGHT_F32, WEIGHT_BF16,
    WEIGHT_AWQ_INT4, WEIGHT_MLX_INT4, WEIGHT_NVFP4, /* 4 bits a code */
    WEIGHT_INT8, WEIGHT_AWQ_INT8, WEIGHT_MLX_INT8   /* a byte a code */
};

/* The tensors that a checkpoint stores a quantised matrix NAME in: NAME.qweight and so on. */
#define PART_CODES "qweight"           /* all but MLX */
#define PART_CODES_MLX "weight"        /* by its dtype told from a matrix that is not quantised */
#define PART_SCALES "scales"           /* all but NVFP4 */
#define PART_SCALES_BF16 "scales_bf16" /* NVFP4; where this is there, scales_fp8 is not read */
#define PART_SCALES_FP8 "scales_fp8"
#define PART_ZEROS "zeros"             /* AWQ: what tells it from NVFP4 */
#define PART_OFFSETS "biases"          /* MLX */
#define PART_TENSOR_SCALE "tensor_scale"

enum { CODES_PER_BYTE = 2, CODES_PER_WORD = 8 }; /* of 4 bits */

/* A matrix [out_features, in_features] as the checkpoint stores it. Pointers lead into the mapped file and need not be
 * aligned. */
struct linear_source {
    enum weight_format format;
    int out_features;
    int in_features;
    int group_size;             /* quantised formats: columns per scale; divides in_features */
    const void *data;           /* F32, BF16: [out, in]; else the codes */
    const void *scales;
    const void *scales_fp8;
    const uint8_t *zeros;
    const void *offsets;
    float tensor_scale;         /* NVFP4, of scales_fp8: 1.0 with `scales`, or where the file has none */
    const void *bias;           /* [out] or NULL */
    enum weight_format bias_format; /* WEIGHT_F32 or WEIGHT_BF16 */
};

/* A convolution as the checkpoint stores it: weight [out, in, kt, kh, kw] (kt = 1 for
 * a 2-D one), F32 or BF16; bias [out] of the same format, or NULL. */
struct conv_source {
    enum weight_format format;
    int out_channels;
    int in_channels;
    int kernel_t, kernel_h, kernel_w;
    const void *weight;
    const void *bias;
};

static inline bool weight_is_four_bit(enum weight_format format)
{
    return format == WEIGHT_AWQ_INT4 || format == WEIGHT_MLX_INT4 || format == WEIGHT_NVFP4;
}

static inline bool weight_is_of_bytes(enum weight_format format)
{
    return format == WEIGHT_INT8 || format == WEIGHT_AWQ_INT8 || format == WEIGHT_MLX_INT8;
}

static inline bool weight_is_quantised(enum weight_format format)
{
    return weight_is_four_bit(format) || weight_is_of_bytes(format);
}

static inline bool weight_has_zeros(enum weight_format format)
{
    return format == WEIGHT_AWQ_INT4 || format == WEIGHT_AWQ_INT8;
}

static inline bool weight_has_offsets(enum weight_format format)
{
    return format == WEIGHT_MLX_INT4 || format == WEIGHT_MLX_INT8;
}

/* Bytes that `columns` weights of a row take in `data`. */
static inline size_t weight_bytes(enum weight_format format, size_t columns)
{
    return weight_is_four_bit(format)   ? columns / CODES_PER_BYTE
           : weight_is_of_bytes(format) ? columns
                                        : columns * (format == WEIGHT_F32 ? 4 : 2);
}

/* Bytes that one row of a matrix takes in each of its arrays; 0 for an array that the format has
 * not, or that is not read. */
struct linear_row_bytes {
    size_t data, scales, scales_fp8, zeros, offsets;
};

static inline struct linear_row_bytes linear_row_bytes(const struct linear_source *s)
{
    const size_t columns = (size_t)s->in_features,
                 groups = weight_is_quantised(s->format) ? columns / (size_t)s->group_size : 0;
    const bool fp8 = s->format == WEIGHT_NVFP4 && !s->scales;
    struct linear_row_bytes bytes;
    bytes.data = weight_bytes(s->format, columns);
    bytes.scales = fp8 ? 0 : 2 * groups;
    bytes.scales_fp8 = fp8 ? groups : 0;
    bytes.zeros = weight_has_zeros(s->format) ? groups : 0;
    bytes.offsets = weight_has_offsets(s->format) ? 2 * groups : 0;
    return bytes;
}

#endif
