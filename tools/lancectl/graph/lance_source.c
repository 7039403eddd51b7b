/* lance_source.c: see lance_source.h. */
#include "tools/lancectl/graph/lance_source.h"

#include <stdlib.h>

#include "tools/lancectl/source.h"
#include "tools/lancectl/submission.h"
#include "tools/media/clip.h"

static void add(struct ask *ask, int frames, int height, int width, const uint8_t *pixels, void *owned)
{
    ask_add(ask, "source", DTYPE_U8, 4, (const int[]){frames, height, width, 3}, pixels, owned);
}

int lance_source_pictures(struct ask *ask, const struct value *image, int first, int count, struct error *error)
{
    const uint8_t *bytes;
    uint8_t *owned;
    int code = pictures_bytes(&bytes, &owned, &image->pictures, first, count, true, error);
    if (!code)
        add(ask, count, image->pictures.height, image->pictures.width, bytes, owned);
    return code;
}

/* The sampled frames of pictures in memory. */
static int sample(struct clip *clip, const struct pictures *pictures, double fps, uint64_t max_bytes,
                  struct error *error)
{
    int indices[SAMPLING_MAX_FRAMES];
    const int count = clip_sample(pictures->count, fps, indices, error);
    int code = count < 0 ? count : clip_open(clip, count, pictures->height, pictures->width, max_bytes, error);
    for (int i = 0; !code && i < count; i++) {
        const uint8_t *bytes;
        uint8_t *owned;
        code = pictures_bytes(&bytes, &owned, pictures, indices[i], 1, true, error);
        if (!code)
            code = clip_put(clip, i, bytes, error);
        free(owned);
    }
    clip->source_frames = pictures->count;
    clip->source_fps = fps;
    return code;
}

int lance_source_clip(struct work *work, struct ask *ask, const struct value *video, double fps, bool only_first,
                      struct error *error)
{
    struct clip clip = {0};
    const uint64_t max_bytes = job_source_limit(work->context->session);
    int code;
    if (video->kind == VALUE_VIDEO && video->text) {
        const struct source source = {.path = video->text, .kind = SOURCE_VIDEO, .max_bytes = max_bytes};
        code = source_read(&clip, &source, error);
    } else {
        code = sample(&clip, &video->pictures, video->kind == VALUE_VIDEO ? video->number : fps, max_bytes, error);
    }
    if (code) {
        clip_free(&clip);
        return code;
    }
    if (!only_first)
        json_add_number(ask->params, "fps", SAMPLING_FPS);
    work->source_seconds = clip.source_fps > 0 ? clip.source_frames / clip.source_fps : 0;
    add(ask, only_first ? 1 : clip.frames, clip.height, clip.width, clip.pixels, clip.pixels);
    return 0;
}
