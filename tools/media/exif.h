/* exif.h: the one thing of a picture's EXIF that matters here: how it has to be turned to be upright. */
#ifndef LANCE_MEDIA_EXIF_H
#define LANCE_MEDIA_EXIF_H

#include <stddef.h>
#include <stdint.h>

enum { EXIF_UPRIGHT = 1, EXIF_LAST_ORIENTATION = 8 };

/* The orientation, 1 to 8, in a block of EXIF (with or without "Exif" and two zeros in front); 1 where there is none,
 * or damage. */
int exif_orientation(const uint8_t *exif, size_t bytes);

/* What is to be done with a picture of that orientation, in words, such as "turned by 90 degrees clockwise". */
const char *exif_turn_in_words(int orientation);

#endif
