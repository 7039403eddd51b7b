/* lance_node.c: see lance_node.h. */
#include "tools/lancectl/graph/lance_node.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/clip_sampling.h"
#include "protocol/latent_shape.h"
#include "tools/lancectl/graph/edit_by_mask.h"
#include "tools/lancectl/graph/lance_params.h"
#include "tools/lancectl/graph/lance_result.h"
#include "tools/lancectl/graph/lance_source.h"
#include "tools/lancectl/graph/latents_of.h"

enum { MAX_VIDEO_FRAMES = 121 }; /* that a request takes */

static int no_memory(struct error *error)
{
    return error_set(error, ERROR_NO_MEMORY, "no memory for a request");
}

/* The input that becomes that, or -1. `key` and `value`: what its entry says. */
static int input_that(const struct work *work, const char *key, const char *value)
{
    for (int i = 0; i < work->node->kind->inputs; i++) {
        const char *says = json_text(work->node->kind->input[i].entry, key);
        if (says && !strcmp(says, value))
            return i;
    }
    return -1;
}

static struct value *value_at(const struct work *work, int input)
{
    return input >= 0 && work->input[input].count ? work->input[input].items[0] : NULL;
}

/* A job with the node's parameters in it. */
static int ask_with_params(struct work *work, const char *task, struct ask **ask, struct error *error)
{
    *ask = work_ask(work, task);
    if (!*ask)
        return no_memory(error);
    const struct value *model = work_value(work, "lance_model");
    (*ask)->model = model && !work->context->uses_own_model ? model->text : NULL;
    return lance_params_add((*ask)->params, work, error);
}

/* ---- Edits by a mask: first the source's own latents, then the edit ---- */

static int ask_for_encodings(struct work *work, const struct value *image, struct error *error)
{
    const int count = image->pictures.count;
    const struct value *mask = work_value(work, "mask");
    if (mask->pictures.count != 1 && mask->pictures.count != count)
        return error_set(error, ERROR_BAD_REQUEST, "mask must have one for all %d pictures or one for each, has %d",
                         count, mask->pictures.count);
    work->edits = calloc((size_t)count, sizeof *work->edits);
    if (!work->edits)
        return no_memory(error);
    work->edit_count = count;
    int code = 0;
    for (int i = 0; !code && i < count; i++) {
        struct ask *ask = work_ask(work, "encode");
        if (!ask)
            return no_memory(error);
        const struct value *model = work_value(work, "lance_model");
        ask->model = model && !work->context->uses_own_model ? model->text : NULL;
        code = lance_params_add_resolution(ask->params, work, error);
        if (!code)
            code = lance_source_pictures(ask, image, i, 1, error);
    }
    return code;
}

/* The latents of one picture, once for each result that is wanted; malloc'ed. */
static float *repeated(const struct tensor_view *latents, int times)
{
    char *made = malloc(latents->bytes * (size_t)times);
    for (int i = 0; made && i < times; i++)
        memcpy(made + (size_t)i * latents->bytes, latents->data, latents->bytes);
    return (float *)(void *)made;
}

static int ask_for_edit(struct work *work, int index, const char *task, struct error *error)
{
    const struct value *image = work_value(work, "image"), *mask = work_value(work, "mask"),
                       *batch = work_value(work, "batch_size");
    const struct tensor_view *latents = job_result_tensor(work->asks[index].result, "latents");
    if (!latents || latents->dtype != DTYPE_F32 || latents->dimensions != 5 || latents->shape[3] > 512 ||
        latents->shape[4] > 512)
        return error_set(error, ERROR_INTERNAL, "the daemon sent no latents, or of an unknown form");
    const int rows = (int)latents->shape[3], columns = (int)latents->shape[4],
              times = batch ? (int)value_number(batch) : 1;
    const uint8_t *picture;
    uint8_t *owned;
    int code = pictures_bytes(&picture, &owned, &image->pictures, index, 1, true, error);
    struct edit_by_mask *edit = &work->edits[index];
    const struct pictures *painted = &mask->pictures;
    const size_t mask_values = (size_t)painted->height * (size_t)painted->width;
    if (!code)
        code = edit_by_mask_open(edit, picture, image->pictures.height, image->pictures.width,
                                 painted->floats + (painted->count == 1 ? 0 : (size_t)index * mask_values),
                                 painted->height, painted->width, rows * VAE_SPATIAL_STRIDE,
                                 columns * VAE_SPATIAL_STRIDE, error);
    free(owned);
    edit->encoding = index;
    if (code || edit->is_empty)
        return code;
    struct ask *ask;
    code = ask_with_params(work, task, &ask, error);
    if (code)
        return code;
    edit->edit = work->ask_count - 1;
    code = lance_source_pictures(ask, image, index, 1, error);
    float *kept = repeated(latents, times), *cells = edit_by_mask_cells(edit);
    if (!code)
        ask_add(ask, "latents", DTYPE_F32, 5,
                (const int[]){times, LATENT_CHANNELS, (int)latents->shape[2], rows, columns}, kept, kept);
    if (!code)
        ask_add(ask, "latent_mask", DTYPE_F32, 5, (const int[]){1, 1, 1, rows, columns}, cells, cells);
    return code ? code : kept && cells ? 0 : no_memory(error);
}

/* ---- The sampler ---- */

static const char *task_of_sampler(const struct work *work, bool is_video, bool has_source)
{
    const char *name = is_video     ? (has_source ? "video with source" : "video")
                       : has_source ? "picture with source"
                                    : "picture";
    return json_text(cJSON_GetObjectItemCaseSensitive(work->node->kind->entry, "task"), name);
}

static bool has_nothing_to_do(const struct work *work)
{
    return work_number(work, "denoise") <= 0 ||
           work_number(work, "start_at_step") >= fmin(work_number(work, "steps"), work_number(work, "end_at_step"));
}

/* Add the noise that the sampling starts from, where it adds some. */
static int add_noise(struct work *work, struct ask *ask, const struct latent *latent, const int *shape,
                     struct error *error)
{
    const cJSON *adds = cJSON_GetObjectItemCaseSensitive(ask->params, "add_noise");
    if (!cJSON_IsTrue(adds))
        return 0;
    const struct value *noise = value_at(work, input_that(work, "payload", "noise"));
    const struct value *seed = value_at(work, input_that(work, "noise", "seed"));
    float *rows;
    int code = latents_noise(&rows, latent, shape, seed->whole.magnitude, noise ? &noise->latent : NULL, error);
    if (code)
        return code;
    json_add_text(ask->params, "noise_source", "client");
    ask_add(ask, "noise", DTYPE_F32, 3, (const int[]){shape[0], shape[2] * shape[3] * shape[4], LATENT_CHANNELS}, rows,
            rows);
    return 0;
}

static int ask_for_samples(struct work *work, struct value *from, struct error *error)
{
    if (has_nothing_to_do(work)) { /* as it is, as KSampler does */
        work->is_done = true;
        return work_give(work, 0, value_hold(from), error);
    }
    const struct latent *latent = &from->latent;
    const struct value *source = work_value(work, "source");
    int shape[LATENT_DIMENSIONS];
    float *samples;
    int code = latents_of(&samples, shape, latent, error);
    if (code)
        return code;
    const bool is_video = shape[2] > 1;
    struct ask *ask;
    code = ask_with_params(work, task_of_sampler(work, is_video, source != NULL), &ask, error);
    if (!code)
        ask_add(ask, "latents", DTYPE_F32, 5, shape, samples, samples);
    else
        free(samples);
    if (!code && latent->state && !memcmp(shape, latent->shape, sizeof shape))
        ask_add(ask, "latent_state", DTYPE_F32, 5, shape, latent->state, NULL);
    if (!code && source) {
        code = lance_source_clip(work, ask, source, work_number(work, "fps"), !is_video, error);
        char size[40];
        snprintf(size, sizeof size, "%dx%d", VAE_SPATIAL_STRIDE * shape[3], VAE_SPATIAL_STRIDE * shape[4]);
        json_add_text(ask->params, "resolution", size);
    }
    return code ? code : add_noise(work, ask, latent, shape, error);
}

/* ---- What becomes of inputs ---- */

static int ask_about_picture(struct work *work, const char *task, const struct value *image, int first, int count,
                             struct error *error)
{
    struct ask *ask;
    int code = ask_with_params(work, task, &ask, error);
    return code ? code : lance_source_pictures(ask, image, first, count, error);
}

/* One job for each picture. */
static int ask_about_each(struct work *work, const char *task, const struct value *image, struct error *error)
{
    int code = 0;
    for (int i = 0; !code && i < image->pictures.count; i++)
        code = ask_about_picture(work, task, image, i, 1, error);
    return code;
}

static int ask_about_clip(struct work *work, const char *task, const struct value *video, struct error *error)
{
    const struct value *fps = value_at(work, input_that(work, "becomes", "rate_of"));
    struct ask *ask;
    int code = ask_with_params(work, task, &ask, error);
    if (!code)
        code = lance_source_clip(work, ask, video, fps ? value_number(fps) : SAMPLING_FPS, false, error);
    if (!code && !strcmp(task, "encode")) /* it takes frames as they are */
        cJSON_DeleteItemFromObjectCaseSensitive(ask->params, "fps");
    return code;
}

static int ask_about_frames(struct work *work, const char *task, const struct value *pixels, struct error *error)
{
    if (pixels->kind == VALUE_VIDEO)
        return ask_about_clip(work, task, pixels, error);
    const struct value *batch = value_at(work, input_that(work, "becomes", "batch_of"));
    if (batch && !strcmp(batch->text, "pictures"))
        return ask_about_each(work, task, pixels, error);
    const int count = pixels->pictures.count;
    return ask_about_picture(work, task, pixels, 0, count < MAX_VIDEO_FRAMES ? count : MAX_VIDEO_FRAMES, error);
}

static int ask_about_latents(struct work *work, const char *task, const struct value *value, struct error *error)
{
    struct ask *ask;
    int code = ask_with_params(work, task, &ask, error), shape[LATENT_DIMENSIONS];
    float *samples;
    if (!code)
        code = latents_of(&samples, shape, &value->latent, error);
    if (!code)
        ask_add(ask, "latents", DTYPE_F32, 5, shape, samples, samples);
    return code;
}

int lance_node_begin(struct work *work, struct error *error)
{
    const char *task = json_text(work->node->kind->entry, "task");
    const int place = input_that(work, "becomes", "payload");
    if (place < 0) {
        struct ask *ask;
        return ask_with_params(work, task, &ask, error);
    }
    struct value *payload = value_at(work, place);
    const char *as = json_text(work->node->kind->input[place].entry, "as");
    if (!strcmp(as, "first"))
        return ask_about_picture(work, task, payload, 0, 1, error);
    if (!strcmp(as, "each"))
        return work_value(work, "mask") ? ask_for_encodings(work, payload, error)
                                        : ask_about_each(work, task, payload, error);
    if (!strcmp(as, "clip"))
        return ask_about_clip(work, task, payload, error);
    if (!strcmp(as, "frames"))
        return ask_about_frames(work, task, payload, error);
    if (!strcmp(as, "start"))
        return ask_for_samples(work, payload, error);
    if (!strcmp(as, "whole"))
        return ask_about_latents(work, task, payload, error);
    return error_set(error, ERROR_INTERNAL, "nodes.json: %s takes its payload as \"%s\", which is not known",
                     work->node->kind->id, as);
}

int lance_node_continue(struct work *work, struct error *error)
{
    if (work->edits && !work->edits[0].kept) { /* only the encodings are there */
        const int pictures = work->edit_count;
        int code = 0;
        for (int i = 0; !code && i < pictures; i++)
            code = ask_for_edit(work, i, json_text(work->node->kind->entry, "task"), error);
        if (code || work->ask_count > pictures)
            return code;
    }
    return lance_result_give(work, error);
}
