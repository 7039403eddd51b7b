/* row_codes.h: scales and codes of one row of a matrix, so that its outputs change least. */
#ifndef LANCE_QUANT_ROW_CODES_H
#define LANCE_QUANT_ROW_CODES_H

#include "tools/lance-quant/quadratic.h"
#include "tools/lance-quant/recipe.h"

struct row_rounding {
    struct code_form form;     /* its group divides the row */
    unsigned ingredients;      /* enum ingredient */
    const struct quadratic *q; /* of the inputs as they meet the row */
    float tensor_scale;        /* NVFP4: a power of 2; the scale of a group is an E4M3 number times this */
};

/* Room for one row, of one thread. */
struct row_room {
    float *scales, *seconds; /* [groups]; seconds: AWQ's zeros */
    float *wanted, *rounded; /* [width] */
    float *row;              /* [width], the caller's own */
    uint8_t *codes;          /* [width], one in each byte */
};

int row_room_open(struct row_room *room, int width, struct error *error);
void row_room_close(struct row_room *room);

/* Of row [width] into `out`, and into room->rounded what the codes are worth. For NVFP4, out->scales (bf16) are whole
 * scales and out->second E4M3 ones, for tensor_scale. */
void row_codes(const struct row_rounding *rounding, const float *row, struct row_room *room,
               const struct code_row *out);

/* The tensor scale for matrices whose largest element is this: the smallest power of 2 that holds every scale. */
float row_codes_tensor_scale(float largest);

#endif
