/* source.h: the picture or video that a task starts from. */
#ifndef LANCECTL_SOURCE_H
#define LANCECTL_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/error.h"
#include "tools/media/clip.h"

enum source_kind { SOURCE_NONE, SOURCE_PICTURE, SOURCE_VIDEO, SOURCE_EITHER };

/* Read `path` as what `kind` wants, in at most `max_bytes`; with SOURCE_EITHER the file decides. `fps` is the frame rate of
 * a video that does not tell its own, or 0. The message names the file and what is accepted. Close with clip_free. */
int source_read(struct clip *clip, enum source_kind kind, const char *path, double fps, uint64_t max_bytes,
                struct error *error);

#endif
