/* clip_sampling.c: see clip_sampling.h. Source: data/video/sampler of the official code. */
#include "protocol/clip_sampling.h"

#include <math.h>

#include "protocol/latent_shape.h"

int sampling_frames(int count, double fps, int *indices, int capacity, struct error *error)
{
    if (count < 1)
        return error_set(error, ERROR_BAD_REQUEST, "a clip without frames");
    if (!(fps >= SAMPLING_MIN_CLIP_FPS && fps <= SAMPLING_MAX_CLIP_FPS))
        return error_set(error, ERROR_BAD_REQUEST, "a clip at %g frames per second; %g to %g are accepted", fps,
                         SAMPLING_MIN_CLIP_FPS, SAMPLING_MAX_CLIP_FPS);
    int frames = (int)rint(fmin(count / fmax(rint(fps), 1), SAMPLING_MAX_SECONDS) * SAMPLING_FPS);
    const int rest = frames % VAE_TEMPORAL_STRIDE;
    frames = rest ? frames - rest + 1 : frames - VAE_TEMPORAL_STRIDE + 1;
    if (frames < 1) /* under half a sampling step: officially an error, here its first frame */
        frames = 1;
    if (frames > capacity)
        return error_set(error, ERROR_TOO_LARGE, "%d frames are sampled, there is room for %d", frames, capacity);
    double step = frames > 1 ? (double)(count - 1) / (frames - 1) : 0;
    for (int i = 0; i < frames; i++)
        indices[i] = (int)floor(i * step);
    if (frames > 1)
        indices[frames - 1] = count - 1;
    return frames;
}

int sampling_fit(int frames, int *height, int *width, uint64_t max_bytes, struct error *error)
{
    const double bytes = 3.0 * frames * *height * *width;
    if (bytes <= (double)max_bytes)
        return 0;
    const double scale = sqrt((double)max_bytes / bytes);
    const int fitting_height = (int)(*height * scale), fitting_width = (int)(*width * scale);
    if (fitting_height < 1 || fitting_width < 1)
        return error_set(error, ERROR_TOO_LARGE, "%d frames of %d x %d pixels cannot be made to fit into %llu bytes, "
                         "the daemon's limit", frames, *width, *height, (unsigned long long)max_bytes);
    *height = fitting_height;
    *width = fitting_width;
    return 0;
}

uint64_t sampling_source_bytes(uint64_t blob_bytes)
{
    return blob_bytes - blob_bytes / 16; /* the rest is for what goes with it */
}
