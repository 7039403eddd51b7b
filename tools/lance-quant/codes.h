/* codes.h: from numbers to 4-bit codes, as the published recipe rounds them.
 *
 * The layouts are kernels/formats; this is the choice of scales, zeros and codes. Source: awq_apply.py
 * (quantize_per_group) and nvfp4_apply.py (quantize_fp4_per_block) of lance-quant, whose behaviour is kept to the
 * rounding of each number.
 */
#ifndef LANCE_QUANT_CODES_H
#define LANCE_QUANT_CODES_H

#include <stdint.h>

#include "kernels/formats/group.h"

/* A form to write: WEIGHT_AWQ_INT4, WEIGHT_NVFP4 or WEIGHT_INT8, and the columns that share a scale; or WEIGHT_BF16. */
struct code_form {
    enum weight_format format;
    int group;
};

enum { NVFP4_GROUP = 16 };

/* The names of a form's files, as published; those of INT8 are ours. */
const char *codes_weights_file(enum weight_format format);
const char *codes_meta_file(enum weight_format format);

/* The group that divides a row: `wanted`, or else the first of 128, 64, 32 and 16 that does, or the whole row. */
int codes_group(int in_features, int wanted);

/* Where the parts of one row go: `codes` u8 [in/2], of INT8 i8 [in]; `scales` bf16 [in/group]; `second` u8 [in/group]:
 * AWQ's zeros, NVFP4's scales as E4M3, NULL for INT8. */
struct code_row {
    uint8_t *codes;
    uint16_t *scales;
    uint8_t *second;
};

/* Codes of a row of `n` numbers, not for INT8; n is a multiple of form->group, and even. */
void codes_encode(const struct code_form *form, const float *row, int n, const struct code_row *out);

/* What the row becomes when it is encoded and decoded, in float32 throughout, as the published search has it: scales
 * are not rounded, and an AWQ zero may lie outside of the codes. `out` may be `row`. */
void codes_round(const struct code_form *form, const float *row, int n, float *out);

#endif
