/* clip.c: see clip.h. */
#include "tools/media/clip.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/engine/model/picture.h"
#include "tools/media/frame_rate.h"

int clip_check_size(int64_t height, int64_t width, struct error *error)
{
    if (height < 1 || width < 1)
        return error_set(error, ERROR_BAD_FILE, "does not tell its size, or is damaged");
    if (height <= CLIP_MAX_SIDE && width <= CLIP_MAX_SIDE)
        return 0;
    return error_set(error, ERROR_TOO_LARGE, "is %lld x %lld pixels; 1 to %d a side are accepted", (long long)width,
                     (long long)height, CLIP_MAX_SIDE);
}

int clip_open(struct clip *clip, int frames, int height, int width, uint64_t max_bytes, struct error *error)
{
    *clip = (struct clip){.frames = frames, .height = height, .width = width, .source_frames = frames,
                          .source_height = height, .source_width = width};
    double bytes = 3.0 * frames * height * width;
    if (bytes > (double)max_bytes) {
        double scale = sqrt((double)max_bytes / bytes);
        clip->height = (int)(height * scale);
        clip->width = (int)(width * scale);
        if (clip->height < 1 || clip->width < 1)
            return error_set(error, ERROR_TOO_LARGE, "%d frames of %d x %d pixels cannot be made to fit into %llu bytes, "
                             "the daemon's limit", frames, width, height, (unsigned long long)max_bytes);
    }
    clip->pixels = malloc(3 * (size_t)frames * (size_t)clip->height * (size_t)clip->width);
    return clip->pixels ? 0 : error_set(error, ERROR_NO_MEMORY, "no memory for %d frames of %d x %d pixels", frames,
                                        clip->width, clip->height);
}

int clip_put(struct clip *clip, int index, const uint8_t *pixels, struct error *error)
{
    size_t frame_bytes = 3 * (size_t)clip->height * (size_t)clip->width;
    uint8_t *frame = clip->pixels + (size_t)index * frame_bytes;
    if (clip->height != clip->source_height || clip->width != clip->source_width)
        return picture_resize_bicubic(pixels, clip->source_height, clip->source_width, frame, clip->height, clip->width,
                                      error);
    memcpy(frame, pixels, frame_bytes);
    return 0;
}

void clip_free(struct clip *clip)
{
    free(clip->pixels);
    *clip = (struct clip){0};
}

int clip_sample(int frames, double fps, int indices[CLIP_MAX_SAMPLED], struct error *error)
{
    if (!frame_rate_is_accepted(fps))
        return error_set(error, ERROR_BAD_FILE, "has %d frames at %g a second; a rate of %g to %g is accepted (--fps sets it)", frames,
                         fps, FRAME_RATE_MIN, FRAME_RATE_MAX);
    /* The official sampler rounds the rate to a whole one, and cannot work with none. */
    return picture_sample_frames(frames, fmax(fps, 1), indices, CLIP_MAX_SAMPLED, error);
}
