/* frames.h: a picture, or a folder of numbered pictures with its rate in fps.txt, as 8-bit RGB.
 *
 * Transparent pictures are laid on white, as the official loader does with Pillow. */
#ifndef CHECK_GOLDEN_FRAMES_H
#define CHECK_GOLDEN_FRAMES_H

#include "daemon/engine/lance.h"

/* Read `path`, a PNG file or a folder of PNG files of one size. Free with frames_free. */
int frames_read(struct lance_media *media, const char *path, struct error *error);
void frames_free(struct lance_media *media);

#endif
