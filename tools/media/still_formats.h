/* still_formats.h: one decoder per picture format, behind still.h. */
#ifndef LANCE_MEDIA_STILL_FORMATS_H
#define LANCE_MEDIA_STILL_FORMATS_H

#include <stddef.h>

#include "tools/media/still_pixels.h"

struct WebPAnimDecoder;

/* Decode a whole file in memory. The message does not name the file. Errors as still_read. */
int still_decode_png(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_heif(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_jpeg(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_avif(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_bmp(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_gif(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_tiff(struct still *still, const uint8_t *data, size_t bytes, struct error *error);
int still_decode_webp(struct still *still, const uint8_t *data, size_t bytes, struct error *error);

/* libwebp's decoder of a whole file in memory, which must outlive it. It asks for two canvases as soon as it is made:
 * the size is looked at before. NULL is left on failure, as above. */
int still_open_webp(struct WebPAnimDecoder **out, const uint8_t *data, size_t bytes, struct error *error);

#endif
