/* core_save.c: see core_save.h. */
#include "tools/lancectl/graph/core_save.h"

#include <stdlib.h>
#include <string.h>

#include "tools/lancectl/graph/save_name.h"
#include "tools/lancectl/latents.h"
#include "tools/lancectl/say.h"
#include "tools/media/picture_file.h"
#include "tools/media/video_file.h"

/* Write one picture under a path, which is freed, and tell. */
static int write_picture(struct work *work, char *path, const struct pictures *pictures, int index, bool rounds,
                         struct error *error)
{
    const uint8_t *bytes;
    uint8_t *owned = NULL;
    int code = path ? pictures_bytes(&bytes, &owned, pictures, index, 1, rounds, error)
                    : error_set(error, ERROR_NO_MEMORY, "no memory for a file name");
    if (!code) {
        const struct picture_text texts[] = {{"prompt", work->context->prompt_text},
                                             {"workflow", work->context->workflow_text},
                                             {PICTURE_RECEIPT, pictures_receipt(pictures, index)}};
        code = picture_write_texts(path, bytes, pictures->width, pictures->height, texts, sizeof texts / sizeof *texts,
                                   error);
    }
    if (!code)
        report_file(work->context->report, work->node, path);
    free(owned);
    free(path);
    return code;
}

static int save_pictures(struct work *work, const char *prefix, struct error *error)
{
    struct value *images = work_value(work, "images");
    const struct pictures *pictures = &images->pictures;
    struct save_name name;
    int code = save_name_open(&name, prefix, work->context->graph, work->context->folders.output, pictures->width,
                              pictures->height, error);
    for (int i = 0; !code && i < pictures->count; i++)
        code = write_picture(work, save_name_path(&name, i, ".png"), pictures, i, false, error);
    save_name_close(&name);
    return code ? code : work_give(work, 0, value_hold(images), error);
}

int save_image(struct work *work, struct error *error)
{
    return save_pictures(work, work_text(work, "filename_prefix"), error);
}

int preview_image(struct work *work, struct error *error)
{
    return save_pictures(work, "temp/ComfyUI_temp", error);
}

/* ---- Videos ---- */

static void size_of(const struct value *video, int *width, int *height)
{
    *width = video->pictures.width;
    *height = video->pictures.height;
    if (video->text)
        video_size(video->text, width, height);
}

/* Encode the frames, or copy a file's; with the sound, as it is there. */
static int encode_video(const struct value *video, const char *path, const struct context *context, bool *left_out,
                        struct error *error)
{
    const struct pictures *pictures = &video->pictures;
    const struct video_extras extras = {.prompt = context->prompt_text,
                                        .workflow = context->workflow_text,
                                        .receipt = pictures_receipt(pictures, 0),
                                        .sound = video->sound ? video->sound->text : NULL};
    if (video->text)
        return video_copy(path, video->text, &extras, left_out, error);
    const uint8_t *bytes;
    uint8_t *owned;
    int code = pictures_bytes(&bytes, &owned, pictures, 0, pictures->count, false, error);
    if (!code)
        code = video_write_extras(path, bytes, pictures->count, pictures->height, pictures->width, video->number,
                                  &extras, left_out, error);
    free(owned);
    return code;
}

static int write_video(struct work *work, const struct value *video, const char *prefix, struct error *error)
{
    struct save_name name;
    int width, height;
    bool left_out = false;
    size_of(video, &width, &height);
    int code = save_name_open(&name, prefix, work->context->graph, work->context->folders.output, width, height, error);
    if (code)
        return code;
    char *path = save_name_path(&name, 0, ".mp4");
    save_name_close(&name);
    code = path ? encode_video(video, path, work->context, &left_out, error)
                : error_set(error, ERROR_NO_MEMORY, "no memory for a file name");
    if (left_out)
        say(stderr, "%s: without the sound, which is of a kind that mp4 does not hold\n", path);
    if (!code)
        report_file(work->context->report, work->node, path);
    if (!code && work->node->kind->does) /* Lance Save File, which gives the path */
        code = work_give(work, 0, value_of_text(path), error);
    free(path);
    return code;
}

int save_video(struct work *work, struct error *error)
{
    struct value *video = work_value(work, "video");
    int code = write_video(work, video, work_text(work, "filename_prefix"), error);
    return code ? code : work_give(work, 0, value_hold(video), error);
}

/* Lance Save File: the first picture of an IMAGE, or a VIDEO. */
int save_file(struct work *work, struct error *error)
{
    struct value *what = work_value(work, "what");
    if (what->kind == VALUE_VIDEO)
        return write_video(work, what, work_text(work, "filename_prefix"), error);
    struct save_name name;
    int code = save_name_open(&name, work_text(work, "filename_prefix"), work->context->graph,
                              work->context->folders.output, 0, 0, error);
    if (code)
        return code;
    char *path = save_name_path(&name, 0, ".png");
    save_name_close(&name);
    struct value *given = path ? value_of_text(path) : NULL;
    code = write_picture(work, path, &what->pictures, 0, true, error);
    if (!code)
        return work_give(work, 0, given, error);
    value_release(given);
    return code;
}

/* ---- Latents ---- */

static int write_latent(const char *path, const struct latent *latent, const struct context *context,
                        struct error *error)
{
    const size_t values = latent_values(latent);
    float *zeros = latent->samples ? NULL : calloc(values + 1, sizeof *zeros);
    if (!latent->samples && !zeros)
        return error_set(error, ERROR_NO_MEMORY, "no memory for latents");
    struct tensor_view tensor = {.name = "latent_tensor",
                                 .dtype = DTYPE_F32,
                                 .data = latent->samples ? latent->samples : zeros,
                                 .bytes = values * sizeof *zeros};
    for (int i = 0; i < LATENT_DIMENSIONS; i++)
        if (!(latent->is_flat && i == 2))
            tensor.shape[tensor.dimensions++] = (uint64_t)latent->shape[i];
    const char *keys[3], *texts[3];
    size_t count = 0;
    const struct { const char *key, *text; } all[] = {
        {"prompt", context->prompt_text}, {"workflow", context->workflow_text}, {LATENTS_RECEIPT, latent->receipt}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].text) {
            keys[count] = all[i].key;
            texts[count++] = all[i].text;
        }
    int code = latents_write_tensors(path, &tensor, NULL, keys, texts, count, error);
    free(zeros);
    return code;
}

int save_latent(struct work *work, struct error *error)
{
    struct value *samples = work_value(work, "samples");
    struct save_name name;
    int code = save_name_open(&name, work_text(work, "filename_prefix"), work->context->graph,
                              work->context->folders.output, 0, 0, error);
    if (code)
        return code;
    char *path = save_name_path(&name, 0, ".latent");
    save_name_close(&name);
    code = path ? write_latent(path, &samples->latent, work->context, error)
                : error_set(error, ERROR_NO_MEMORY, "no memory for a file name");
    if (!code)
        report_file(work->context->report, work->node, path);
    free(path);
    return code ? code : work_give(work, 0, value_hold(samples), error);
}
