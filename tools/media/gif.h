/* gif.h: the blocks of a GIF file, as far as libav does not tell of them. */
#ifndef LANCE_MEDIA_GIF_H
#define LANCE_MEDIA_GIF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether these bytes begin like a GIF. */
bool gif_is_one(const uint8_t *data, size_t bytes);

/* How many pictures it has, at least 1. */
uint32_t gif_pictures(const uint8_t *data, size_t bytes);

/* What the first picture leaves free of the canvas. */
struct gif_free_space {
    int left, top, right, bottom; /* of the picture; beyond them the canvas is free */
    uint8_t colour[3];            /* the first one of its palette, which Pillow puts there */
};

/* Fill `space` in. Returns whether that is so: a picture with a transparent colour leaves the canvas transparent. */
bool gif_free_space(struct gif_free_space *space, const uint8_t *data, size_t bytes);

/* Whether the first picture has the greys in order for a palette, so that it is grey to Pillow, and one of them, *grey,
 * is transparent, which the official code then does not mind. */
bool gif_has_transparent_grey(uint8_t *grey, const uint8_t *data, size_t bytes);

#endif
