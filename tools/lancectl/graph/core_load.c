/* core_load.c: see core_load.h. */
#include "tools/lancectl/graph/core_load.h"

#include <stdlib.h>
#include <string.h>

#include "tools/lancectl/graph/input_file.h"
#include "tools/lancectl/graph/latents_of.h"
#include "tools/lancectl/latents.h"
#include "tools/media/animation.h"
#include "tools/media/loaded_frames.h"

enum { MASK_SIDE = 64 }; /* of the empty mask of a picture without transparency */

/* The values of a mask: where the picture is transparent. */
static float *mask_of(const struct loaded_frames *frames, size_t values)
{
    float *mask = calloc(values + 1, sizeof *mask);
    for (size_t i = 0; mask && frames->alpha && i < values; i++)
        mask[i] = 1.0f - frames->alpha[i];
    return mask;
}

int load_image(struct work *work, struct error *error)
{
    char *path;
    struct loaded_frames frames = {0};
    int code = input_file_find(&path, work_text(work, "image"), &work->context->folders, error);
    if (!code && animation_is_webp(path) && animation_pictures(path) > 1)
        code =
            error_set(error, ERROR_BAD_FILE, "%s: is a WebP that moves; LoadImage of lancectl takes still ones", path);
    if (!code)
        code = loaded_frames_read(&frames, path, LOADED_FRAMES_MOST_BYTES, error);
    free(path);
    struct value *image = code ? NULL : value_new(VALUE_IMAGE), *mask = code ? NULL : value_new(VALUE_MASK);
    if (image && mask) {
        image->pictures =
            (struct pictures){frames.count, frames.height, frames.width, frames.bytes, frames.floats, NULL};
        const bool is_seen_through = frames.alpha != NULL;
        mask->pictures.count = frames.count;
        mask->pictures.height = is_seen_through ? frames.height : MASK_SIDE;
        mask->pictures.width = is_seen_through ? frames.width : MASK_SIDE;
        mask->pictures.floats =
            mask_of(&frames, (size_t)frames.count * (size_t)mask->pictures.height * (size_t)mask->pictures.width);
        frames.bytes = NULL;
        frames.floats = NULL;
        if (!mask->pictures.floats)
            code = error_set(error, ERROR_NO_MEMORY, "no memory for a mask");
    } else if (!code) {
        code = error_set(error, ERROR_NO_MEMORY, "no memory for a picture");
    }
    loaded_frames_close(&frames);
    if (code) {
        value_release(image);
        value_release(mask);
        return code;
    }
    code = work_give(work, 0, image, error);
    if (!code)
        return work_give(work, 1, mask, error);
    value_release(mask);
    return code;
}

int load_video(struct work *work, struct error *error)
{
    struct value *video = value_new(VALUE_VIDEO);
    if (!video)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a video");
    int code = input_file_find(&video->text, work_text(work, "file"), &work->context->folders, error);
    if (!code)
        return work_give(work, 0, video, error);
    value_release(video);
    return code;
}

/* ComfyUI's factor for files that were saved before latents had a version. */
static const double old_scale = 1.0 / 0.18215;

int load_latent(struct work *work, struct error *error)
{
    char *path;
    struct latents_file file = {0};
    int code = input_file_find(&path, work_text(work, "latent"), &work->context->folders, error);
    if (!code)
        code = latents_read(&file, path, error);
    free(path);
    struct value *value = code ? NULL : value_new(VALUE_LATENT);
    if (!code && !value)
        code = error_set(error, ERROR_NO_MEMORY, "no memory for latents");
    if (!code)
        code = latents_take(&value->latent, &file.tensors[0], NULL, error);
    if (!code) {
        value->latent.is_flat = safetensors_find(file.file, "latent_tensor")->dimensions == 4;
        const size_t values =
            safetensors_find(file.file, "latent_format_version_0") ? 0 : latent_values(&value->latent);
        for (size_t i = 0; i < values; i++)
            value->latent.samples[i] *= (float)old_scale;
    }
    latents_close(&file);
    if (!code)
        return work_give(work, 0, value, error);
    value_release(value);
    return code;
}
