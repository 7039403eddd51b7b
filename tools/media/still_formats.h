/* still_formats.h: one decoder per picture format, behind still.h. */
#ifndef LANCE_MEDIA_STILL_FORMATS_H
#define LANCE_MEDIA_STILL_FORMATS_H

#include <stddef.h>

#include "tools/media/still_pixels.h"

/* Decode a whole file in memory. The message does not name the file. Errors as still_read. */
int still_decode_png(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_heif(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_jpeg(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_avif(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_bmp(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_gif(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_tiff(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_webp(struct still *still, const uint8_t *data, size_t bytes, struct error *error);

#endif
