/* still_pixels.h: the pixels of a picture, and what the decoders of all its formats do with them. */
#ifndef LANCE_MEDIA_STILL_PIXELS_H
#define LANCE_MEDIA_STILL_PIXELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "tools/media/clip.h"

struct still {
    uint8_t *pixels; /* [height, width, 3]; free() it */
    int height, width;
    int orientation; /* what EXIF says of it, 1 to 8 (exif.h), and what was not done */
};

/* Check the size and allocate the pixels. */
int still_allocate(struct still *still, int64_t height, int64_t width, struct error *error);

/* Turn and mirror the picture as an EXIF orientation asks. ERROR_NO_MEMORY. */
int still_turn(struct still *still, int orientation, struct error *error);

/* Lay RGBA pixels over white, with Pillow's rounding. */
void still_over_white(uint8_t *rgb, const uint8_t *rgba, size_t pixels);

#endif
