/* output.h: where pictures and videos go, by the ending of the name: .png for a picture; .mp4, .webm, .y4m, or a slash
 * for a folder of PNGs, for a video. And .latent, for latents that are not decoded: latents.h. */
#ifndef LANCECTL_OUTPUT_H
#define LANCECTL_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum output_kind { OUTPUT_UNKNOWN, OUTPUT_PNG, OUTPUT_MP4, OUTPUT_WEBM, OUTPUT_Y4M, OUTPUT_FOLDER, OUTPUT_LATENT };

/* What the name asks for; OUTPUT_UNKNOWN for another ending, or a name that is nothing but one. */
enum output_kind output_kind_of(const char *path);

/* The name of item `index` (from 0) of `count`: `path` itself for a single one, else with -1, -2, ... before the
 * extension or the closing slash. malloc'ed; NULL: out of memory. */
char *output_name(const char *path, int index, int count);

/* Whether the last of `count` items, whose name is the longest, could be written there. ERROR_IO otherwise. */
int output_check(const char *path, int count, struct error *error);

/* Whether everything printed to stdout so far has arrived. ERROR_IO otherwise. */
int output_flush(struct error *error);

/* Whether stdout is a pipe whose reader has ended, as in `lancectl ask ... | head -1`. */
bool output_is_closed(void);

/* Write RGB frames [frames, height, width, 3] with a receipt in the way of path's ending. The file or folder
 * appears whole or not at all. Errors: ERROR_BAD_REQUEST (a video into a .png, an unknown ending), else as
 * the writers of tools/media. */
int output_write(const char *path, const uint8_t *pixels, int frames, int height, int width, double fps,
                 const char *receipt, struct error *error);

#endif
