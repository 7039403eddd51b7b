/* animation.h: pictures that move: which files hold several pictures, and animated WebP as a clip (libav, which reads
 * the other kinds, has no decoder for it). */
#ifndef LANCE_MEDIA_ANIMATION_H
#define LANCE_MEDIA_ANIMATION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "tools/media/clip.h"

/* How many pictures, shown one after the other, a WebP, PNG, GIF or AVIF file holds; 1 for every other file, and where
 * damage hides the others. */
int animation_pictures(const char *path);

/* Whether the file begins like a WebP. */
bool animation_is_webp(const char *path);

/* Read the sampled pictures of an animated WebP, which take at most `max_bytes`, over white. `fps` replaces its average
 * rate; 0: the file's. The message names the file. Errors: ERROR_BAD_FILE, ERROR_TOO_LARGE, ERROR_NO_MEMORY. */
int animation_read_webp(struct clip *clip, const char *path, double fps, uint64_t max_bytes, struct error *error);

#endif
