/* clip_sampling.h: which frames of a clip the model looks at, and how large they may be sent. One rule for the engine,
 * for the request `sampling`, and for clients in C.
 *
 * A client that sends just these frames, and calls them SAMPLING_FPS a second, gets what it would get for the whole
 * clip: the daemon takes every one of them. Plain functions; any thread.
 */
#ifndef LANCE_CLIP_SAMPLING_H
#define LANCE_CLIP_SAMPLING_H

#include <stdint.h>

#include "base/error.h"

enum {
    SAMPLING_FPS = 12,
    SAMPLING_MAX_SECONDS = 6, /* of a longer clip as many frames are taken, evenly over all of it */
    SAMPLING_MAX_FRAMES = 69
};

/* Frames per second that a clip may have. */
#define SAMPLING_MIN_CLIP_FPS 0.01
#define SAMPLING_MAX_CLIP_FPS 1000.0

/* Ascending indices of the frames that the official sampler takes of a clip of `count` frames at `fps`; `indices` has
 * room for `capacity`. Returns how many, 4n + 1, or an error (ERROR_BAD_REQUEST for no frames or another rate;
 * ERROR_TOO_LARGE for too little room). The sampler rounds the rate; one below 0.5, by which the official code would
 * divide by zero, counts as 1. */
int sampling_frames(int count, double fps, int *indices, int capacity, struct error *error);

/* The size at which so many RGB frames take at most `max_bytes`: *height and *width as they are, or smaller of the same
 * shape. ERROR_TOO_LARGE when nothing is left of them. */
int sampling_fit(int frames, int *height, int *width, uint64_t max_bytes, struct error *error);

/* What a source may take of the daemon's limit for payloads (limits.blob_bytes of hello). */
uint64_t sampling_source_bytes(uint64_t blob_bytes);

#endif
