/* core_pictures.c: see core_pictures.h. */
#include "tools/lancectl/graph/core_pictures.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/lancectl/graph/video_pictures.h"


/* Give an image that has been filled, or release it. */
static int give_image(struct work *work, struct value *image, int code, struct error *error)
{
    if (!code)
        return work_give(work, 0, image, error);
    value_release(image);
    return code;
}

static struct value *new_image(int *code, struct error *error)
{
    struct value *image = value_new(VALUE_IMAGE);
    *code = image ? 0 : error_set(error, ERROR_NO_MEMORY, "no memory for pictures");
    return image;
}

int image_from_batch(struct work *work, struct error *error)
{
    const struct pictures *of = &work_value(work, "image")->pictures;
    double first = work_number(work, "batch_index");
    if (first < 0)
        first += of->count;
    const int from = (int)fmax(0, fmin(of->count - 1, first));
    const int count = (int)fmin(of->count - from, work_number(work, "length"));
    int code;
    struct value *image = new_image(&code, error);
    if (!code)
        code = pictures_part(&image->pictures, of, from, count, error);
    return give_image(work, image, code, error);
}

int image_batch(struct work *work, struct error *error)
{
    const struct pictures *parts[] = {&work_value(work, "image1")->pictures, &work_value(work, "image2")->pictures};
    int code;
    struct value *image = new_image(&code, error);
    if (!code)
        code = pictures_join(&image->pictures, parts, 2, error);
    if (code == ERROR_BAD_REQUEST)
        error_prefix(error, "ComfyUI would resize the second, lancectl does not");
    return give_image(work, image, code, error);
}

/* All pictures of a list, one after the other, as batches of one. */
static int take_apart(struct list *out, const struct list *images, struct error *error)
{
    int code = 0;
    for (int i = 0; !code && i < images->count; i++)
        for (int at = 0; !code && at < images->items[i]->pictures.count; at++) {
            struct value *image = new_image(&code, error);
            if (!code)
                code = pictures_part(&image->pictures, &images->items[i]->pictures, at, 1, error);
            if (!code)
                code = list_add(out, image, error);
            else
                value_release(image);
        }
    return code;
}

int rebatch_images(struct work *work, struct error *error)
{
    struct list single = {0};
    int code = take_apart(&single, &work->input[0], error);
    const int size = (int)work_number(work, "batch_size");
    const struct pictures **parts = calloc((size_t)single.count + 1, sizeof *parts);
    if (!code && !parts)
        code = error_set(error, ERROR_NO_MEMORY, "no memory for pictures");
    for (int i = 0; !code && i < single.count; i++)
        parts[i] = &single.items[i]->pictures;
    for (int i = 0; !code && i < single.count; i += size) {
        struct value *image = new_image(&code, error);
        if (!code)
            code = pictures_join(&image->pictures, parts + i, single.count - i < size ? single.count - i : size, error);
        code = give_image(work, image, code, error);
    }
    free(parts);
    list_close(&single);
    return code;
}

/* Put one picture of a grid in its place. */
static int paste(struct pictures *grid, const struct pictures *picture, int top, int left, struct error *error)
{
    const uint8_t *bytes;
    uint8_t *owned;
    int code = pictures_bytes(&bytes, &owned, picture, 0, 1, false, error);
    for (int y = 0; !code && y < picture->height; y++)
        memcpy(grid->bytes + 3 * ((size_t)(top + y) * (size_t)grid->width + (size_t)left),
               bytes + 3 * (size_t)y * (size_t)picture->width, 3 * (size_t)picture->width);
    free(owned);
    return code;
}

int image_grid(struct work *work, struct error *error)
{
    const struct list *images = &work->input[0];
    const int columns = (int)work_number(work, "columns"), width = (int)work_number(work, "cell_width"),
              height = (int)work_number(work, "cell_height");
    const int padding = (int)work_number(work, "padding"), rows = (images->count + columns - 1) / columns;
    for (int i = 0; i < images->count; i++) {
        const struct pictures *one = &images->items[i]->pictures;
        if (one->count != 1 || one->height != height || one->width != width)
            return error_set(error, ERROR_BAD_REQUEST,
                             "takes single pictures of the cells' size, %d x %d, and was given %d of %d x %d: ComfyUI "
                             "would resize them, "
                             "lancectl does not",
                             width, height, one->count, one->width, one->height);
    }
    int code;
    struct value *image = new_image(&code, error);
    if (!code)
        code = pictures_open(&image->pictures, 1, rows * height + (rows - 1) * padding,
                             columns * width + (columns - 1) * padding, false, error);
    if (!code)
        memset(image->pictures.bytes, 0, 3 * (size_t)image->pictures.height * (size_t)image->pictures.width);
    for (int i = 0; !code && i < images->count; i++)
        code = paste(&image->pictures, &images->items[i]->pictures, i / columns * (height + padding),
                     i % columns * (width + padding), error);
    return give_image(work, image, code, error);
}

int create_video(struct work *work, struct error *error)
{
    const struct pictures *images = &work_value(work, "images")->pictures;
    struct value *video = value_new(VALUE_VIDEO), *sound = work_value(work, "audio");
    int code = video ? pictures_part(&video->pictures, images, 0, images->count, error)
                     : error_set(error, ERROR_NO_MEMORY, "no memory for a video");
    if (code) {
        value_release(video);
        return code;
    }
    video->number = work_number(work, "fps");
    if (sound && sound->kind == VALUE_AUDIO)
        video->sound = value_hold(sound);
    return work_give(work, 0, video, error);
}

/* The sound of a video: its file's, or what it was made with. */
static struct value *sound_of(struct value *video)
{
    if (!video->text)
        return video->sound ? value_hold(video->sound) : value_new(VALUE_NOTHING);
    struct value *sound = value_new(VALUE_AUDIO);
    if (sound && !(sound->text = strdup(video->text))) {
        value_release(sound);
        return NULL;
    }
    return sound;
}

int get_video_components(struct work *work, struct error *error)
{
    struct value *video = work_value(work, "video"), *images = NULL, *pictures;
    double fps;
    int code = video_pictures(&pictures, &fps, video, error);
    if (code)
        return code;
    if (pictures == video) { /* an IMAGE of a video in memory */
        images = new_image(&code, error);
        if (!code)
            code = pictures_part(&images->pictures, &video->pictures, 0, video->pictures.count, error);
        value_release(pictures);
    } else {
        images = pictures;
    }
    code = give_image(work, images, code, error);
    if (!code)
        code = work_give(work, 1, sound_of(video), error);
    if (!code)
        code = work_give(work, 2, value_of_number(fps), error);
    return code;
}
