/* edit_by_mask.h: a picture that is changed only where a mask is painted, as comfyui_nodes/masks.py does it.
 *
 * Twice: every latent cell with a painted pixel in it is made anew, the others are held to the source while
 * sampling; and the result is laid over the source by the mask, soft edges included. Both need what the model sees
 * of the source, which is cropped and resized.
 */
#ifndef LANCECTL_GRAPH_EDIT_BY_MASK_H
#define LANCECTL_GRAPH_EDIT_BY_MASK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct edit_by_mask {
    int height, width; /* at which the model works */
    uint8_t *kept;     /* [height, width, 3]: the source */
    float *change;     /* [height, width]: 0 stays the source, 1 becomes the result */
    bool is_empty;     /* nothing is painted */
    int encoding, edit; /* which jobs of the node; edit -1: none */
};

/* Fit a picture [picture_height, picture_width, 3] and a mask of any size to height x width, multiples of 16.
 * Errors: ERROR_BAD_REQUEST for a mask with values that are no numbers, ERROR_NO_MEMORY. */
int edit_by_mask_open(struct edit_by_mask *out, const uint8_t *picture, int picture_height, int picture_width,
                      const float *mask, int mask_height, int mask_width, int height, int width, struct error *error);
void edits_by_mask_close(struct edit_by_mask *edits, int count); /* NULL is allowed */

/* f32 [height / 16, width / 16]: 1 where something is painted. malloc'ed; NULL: out of memory. */
float *edit_by_mask_cells(const struct edit_by_mask *edit);

/* [height, width, 3]: the source with `pixels` where the mask is painted. `out` may be `pixels`. */
void edit_by_mask_lay_over(const struct edit_by_mask *edit, const uint8_t *pixels, uint8_t *out);

#endif
