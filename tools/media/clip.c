/* clip.c: see clip.h. */
#include "tools/media/clip.h"

#include <stdlib.h>
#include <string.h>

#include "base/bicubic.h"
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
    int code = sampling_fit(frames, &clip->height, &clip->width, max_bytes, error);
    if (code)
        return code;
    clip->pixels = malloc(3 * (size_t)frames * (size_t)clip->height * (size_t)clip->width);
    return clip->pixels ? 0 : error_set(error, ERROR_NO_MEMORY, "no memory for %d frames of %d x %d pixels", frames,
                                        clip->width, clip->height);
}

int clip_put(struct clip *clip, int index, const uint8_t *pixels, struct error *error)
{
    size_t frame_bytes = 3 * (size_t)clip->height * (size_t)clip->width;
    uint8_t *frame = clip->pixels + (size_t)index * frame_bytes;
    if (clip->height != clip->source_height || clip->width != clip->source_width)
        return bicubic_resize(pixels, 3 * (size_t)clip->source_width, clip->source_height, clip->source_width, frame,
                              clip->height, clip->width, error);
    memcpy(frame, pixels, frame_bytes);
    return 0;
}

void clip_free(struct clip *clip)
{
    free(clip->pixels);
    *clip = (struct clip){0};
}

int clip_sample(int frames, double fps, int indices[SAMPLING_MAX_FRAMES], struct error *error)
{
    if (!frame_rate_is_accepted(fps))
        return error_set(error, ERROR_BAD_FILE,
                         "has %d frames at %g a second; a rate of %g to %g is accepted (--fps sets it)", frames, fps,
                         SAMPLING_MIN_CLIP_FPS, SAMPLING_MAX_CLIP_FPS);
    return sampling_frames(frames, fps, indices, SAMPLING_MAX_FRAMES, error);
}
