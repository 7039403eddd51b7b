/* picture_file.h: PNG files with a receipt inside. */
#ifndef LANCE_MEDIA_PICTURE_FILE_H
#define LANCE_MEDIA_PICTURE_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Write RGB pixels [height, width, 3] as the PNG `path`. `receipt` (ASCII) becomes a tEXt chunk with the keyword
 * "lanced"; NULL: none. The file appears whole or not at all: it is written under a temporary name beside
 * the target, brought to the disk and renamed; an older file of that name is replaced. Errors: ERROR_IO,
 * with the system's reason. */
int picture_write(const char *path, const uint8_t *pixels, int width, int height, const char *receipt,
                  struct error *error);

/* A text of a PNG beside its pixels: keyword and ASCII. */
struct picture_text {
    const char *keyword, *text;
};

/* The same with any texts; those without a text are left out. */
int picture_write_texts(const char *path, const uint8_t *pixels, int width, int height,
                        const struct picture_text *texts, int count, struct error *error);

/* The keyword of receipts. */
#define PICTURE_RECEIPT "lanced"

/* The receipt of a PNG: malloc'ed JSON text. Errors: ERROR_IO (cannot be opened), ERROR_BAD_FILE (no PNG, damaged,
 * or without a receipt). */
int picture_read_receipt(char **receipt, const char *path, struct error *error);

#endif
