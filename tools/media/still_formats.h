/* still_formats.h: one decoder per picture format, behind still.h. */
#ifndef LANCE_MEDIA_STILL_FORMATS_H
#define LANCE_MEDIA_STILL_FORMATS_H

#include <stddef.h>

#include "tools/media/still.h"

/* Decode a whole file in memory. The message does not name the file. Errors as still_read. */
int still_decode_png(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_heif(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_jpeg(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_avif(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_bmp(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_gif(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_tiff(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_webp(struct still *still, const uint8_t *data, size_t bytes, struct error *error);

/* Check the size and allocate the pixels. */
int still_allocate(struct still *still, int64_t height, int64_t width, struct error *error);

/* Turn and mirror the picture as an EXIF orientation asks. ERROR_NO_MEMORY. */
int still_turn(struct still *still, int orientation, struct error *error);

/* Lay RGBA pixels over white, with Pillow's rounding. */
void still_over_white(uint8_t *rgb, const uint8_t *rgba, size_t pixels);

#endif
