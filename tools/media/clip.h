/* clip.h: a picture or the frames of a video in memory, ready to be sent to the daemon.
 *
 * Of a video only those frames are kept that the model will look at: the official sampler's
 * choice, at most 69 (protocol/clip_sampling.h). The frames are called 12 a
 * second, the sampler's rate, at which the daemon takes every one of them. Frames that would
 * not fit into one message to the daemon are made smaller as they come in.
 */
#ifndef LANCE_MEDIA_CLIP_H
#define LANCE_MEDIA_CLIP_H

#include <stdint.h>

#include "base/error.h"
#include "protocol/clip_sampling.h"

#ifndef CLIP_SIDE_BITS /* make fuzz has smaller ones: what is too large is as large there */
#define CLIP_SIDE_BITS 13
#endif
enum { CLIP_MAX_SIDE = 1 << CLIP_SIDE_BITS };

struct clip {
    uint8_t *pixels; /* [frames, height, width, 3], RGB; clip_free frees it */
    int frames, height, width;
    double fps; /* 0 for a picture */
    /* What the file had. */
    int source_frames, source_height, source_width;
    double source_fps;
    int orientation; /* of a picture, what EXIF asks for and was not done (exif.h); 0 or 1: nothing */
};

/* Check the size of a picture or frame before anything of that size is allocated. ERROR_TOO_LARGE, or ERROR_BAD_FILE
 * for no size at all. */
int clip_check_size(int64_t height, int64_t width, struct error *error);

/* Make room for `frames` frames of height x width, or smaller of the same shape when they would take more than
 * `max_bytes`. Errors: ERROR_TOO_LARGE, ERROR_NO_MEMORY. */
int clip_open(struct clip *clip, int frames, int height, int width, uint64_t max_bytes, struct error *error);

/* Fill frame `index` with RGB pixels [source_height, source_width, 3]. ERROR_NO_MEMORY. */
int clip_put(struct clip *clip, int index, const uint8_t *pixels, struct error *error);

void clip_free(struct clip *clip); /* one that was never opened, all zeros, is allowed */

/* The frames that the official sampler takes of a video: ascending `indices` (with room for SAMPLING_MAX_FRAMES).
 * Returns how many, or ERROR_BAD_FILE for a rate that frame_rate.h does not accept. */
int clip_sample(int frames, double fps, int indices[SAMPLING_MAX_FRAMES], struct error *error);

#endif
