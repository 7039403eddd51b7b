/* video_pictures.h: all frames of a VIDEO as pictures in memory. */
#ifndef LANCECTL_GRAPH_VIDEO_PICTURES_H
#define LANCECTL_GRAPH_VIDEO_PICTURES_H

#include "tools/lancectl/graph/value.h"

/* *owned is `video` itself, held once more, where it has its pictures, or an IMAGE of its file's; the caller
 * releases it. *fps: frames per second. ERROR_BAD_FILE, ERROR_TOO_LARGE, ERROR_NO_MEMORY. */
int video_pictures(struct value **owned, double *fps, struct value *video, struct error *error);

#endif
