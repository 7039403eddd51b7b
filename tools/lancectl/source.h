/* source.h: the picture or video that a task starts from. */
#ifndef LANCECTL_SOURCE_H
#define LANCECTL_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "tools/media/clip.h"

enum source_kind { SOURCE_NONE, SOURCE_PICTURE, SOURCE_VIDEO, SOURCE_EITHER };

/* What is read, and how. */
struct source {
    const char *path;      /* "-": the standard input */
    enum source_kind kind; /* with SOURCE_EITHER the file decides: what moves is a clip */
    double fps;            /* the frame rate of a video, instead of its own; 0: its own */
    bool upright;          /* turn pictures as their EXIF asks */
    uint64_t max_bytes;    /* of the pixels */
};

/* Read a source. Of a picture that moves, where a still one is wanted, the first picture is taken, and
 * clip->source_frames says of how many. The message names the file and what is accepted. Close with clip_free. */
int source_read(struct clip *clip, const struct source *source, struct error *error);

#endif
