/* bicubic.h: Pillow's Image.resize(BICUBIC) for 8-bit RGB, bit for bit. Host memory, any thread. */
#ifndef LANCE_BICUBIC_H
#define LANCE_BICUBIC_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* `in` is [height, width, 3] with rows `in_stride` bytes apart; `out` is [out_height, out_width, 3] without gaps.
 * All sizes are positive. ERROR_NO_MEMORY. */
int bicubic_resize(const uint8_t *in, size_t in_stride, int height, int width, uint8_t *out, int out_height,
                   int out_width, struct error *error);

#endif
