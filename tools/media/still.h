/* still.h: reads pictures to the pixels that the official code gets from Pillow.
 *
 * What a file is shows in its first bytes, not in its name. Transparency is laid over white,
 * CMYK and 16-bit pictures become 8-bit RGB as Pillow does it, the first picture of an
 * animation is taken, and a rotation noted in EXIF is applied on demand only (the official code
 * does not; of a TIFF it does, and so does this, and a HEIC is always turned).
 */
#ifndef LANCE_MEDIA_STILL_H
#define LANCE_MEDIA_STILL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "tools/media/clip.h"
#include "tools/media/still_pixels.h"

/* The kinds, for messages. */
#define STILL_KINDS "PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF and HEIC"

/* Read one picture, turned as EXIF asks if `upright`. The message names the file. Errors: ERROR_BAD_FILE (missing, none
 * of STILL_KINDS, damaged or truncated), ERROR_TOO_LARGE (more than CLIP_MAX_SIDE a side), ERROR_NO_MEMORY. */
int still_read(struct still *still, const char *path, bool upright, struct error *error);

/* The same as a clip of one frame that takes at most `max_bytes`. */
int still_read_clip(struct clip *clip, const char *path, bool upright, uint64_t max_bytes, struct error *error);

/* Whether the file begins like one of those formats, or like a GIF. */
bool still_is_one(const char *path);
bool still_is_gif(const char *path);

#endif
