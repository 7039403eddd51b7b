/* lance_result.c: see lance_result.h. */
#include "tools/lancectl/graph/lance_result.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/clip_sampling.h"
#include "protocol/latent_shape.h"
#include "tools/lancectl/graph/edit_by_mask.h"
#include "tools/lancectl/graph/latents_of.h"
#include "tools/lancectl/receipt.h"

/* One picture that a node worked on: whose job it is, and what its mask keeps; or a job alone. */
struct part {
    const struct job_result *result;
    const struct edit_by_mask *edit; /* or NULL */
};

static int parts_of(const struct work *work)
{
    return work->edits ? work->edit_count : work->ask_count;
}

static struct part part_at(const struct work *work, int index)
{
    const struct edit_by_mask *edit = work->edits ? &work->edits[index] : NULL;
    const int ask = !edit ? index : edit->edit >= 0 ? edit->edit : edit->encoding;
    return (struct part){work->asks[ask].result, edit};
}

/* ---- Pictures ---- */

/* How many results an edit that changes nothing stands for. */
static int batch_of(const struct work *work)
{
    const struct value *batch = work_value(work, "batch_size");
    return batch ? (int)value_number(batch) : 1;
}

static int pictures_of_result(struct pictures *out, const struct part *part, struct error *error)
{
    const struct tensor_view *pixels = job_result_tensor(part->result, "pixels");
    bool fits = pixels && pixels->dtype == DTYPE_U8 && pixels->dimensions == 5 && pixels->shape[4] == 3;
    for (int i = 0; fits && i < 4; i++)
        fits = pixels->shape[i] >= 1 && pixels->shape[i] <= INT_MAX;
    if (!fits || pixels->shape[0] * pixels->shape[1] > INT_MAX)
        return error_set(error, ERROR_INTERNAL, "the daemon sent no pictures, or of an unknown form");
    const int batch = (int)pixels->shape[0], frames = (int)pixels->shape[1];
    int code = pictures_open(out, batch * frames, (int)pixels->shape[2], (int)pixels->shape[3], false, error);
    if (code)
        return code;
    memcpy(out->bytes, pixels->data, pixels->bytes);
    const size_t one = 3 * (size_t)out->height * (size_t)out->width;
    for (int i = 0; part->edit && i < out->count; i++)
        edit_by_mask_lay_over(part->edit, out->bytes + (size_t)i * one, out->bytes + (size_t)i * one);
    out->receipts = calloc((size_t)out->count, sizeof *out->receipts);
    for (int i = 0; out->receipts && i < out->count; i++)
        if (!(out->receipts[i] = receipt_of_picture(job_result_fields(part->result), i / frames)))
            return error_set(error, ERROR_NO_MEMORY, "no memory for receipts");
    return out->receipts ? 0 : error_set(error, ERROR_NO_MEMORY, "no memory for receipts");
}

/* The source itself, where nothing of it is painted. */
static int pictures_kept(struct pictures *out, const struct edit_by_mask *edit, int count, struct error *error)
{
    int code = pictures_open(out, count, edit->height, edit->width, false, error);
    const size_t one = 3 * (size_t)edit->height * (size_t)edit->width;
    for (int i = 0; !code && i < count; i++)
        memcpy(out->bytes + (size_t)i * one, edit->kept, one);
    return code;
}

static int give_pixels(struct work *work, int output, struct error *error)
{
    const int count = parts_of(work);
    struct value **parts = calloc((size_t)count, sizeof *parts);
    const struct pictures **pictures = calloc((size_t)count, sizeof *pictures);
    struct value *image = value_new(VALUE_IMAGE);
    int code = parts && pictures && image ? 0 : error_set(error, ERROR_NO_MEMORY, "no memory for pictures");
    for (int i = 0; !code && i < count; i++) {
        const struct part part = part_at(work, i);
        parts[i] = value_new(VALUE_IMAGE);
        if (!parts[i])
            code = error_set(error, ERROR_NO_MEMORY, "no memory for pictures");
        else if (part.edit && part.edit->is_empty)
            code = pictures_kept(&parts[i]->pictures, part.edit, batch_of(work), error);
        else
            code = pictures_of_result(&parts[i]->pictures, &part, error);
        if (!code)
            pictures[i] = &parts[i]->pictures;
    }
    if (!code && count == 1) {
        value_release(image);
        image = value_hold(parts[0]);
    } else if (!code) {
        code = pictures_join(&image->pictures, pictures, count, error);
    }
    for (int i = 0; parts && i < count; i++)
        value_release(parts[i]);
    free(parts);
    free(pictures);
    if (!code)
        return work_give(work, output, image, error);
    value_release(image);
    return code;
}

/* ---- Videos ---- */

/* Frames per second of what was made: the daemon's; or what the node says; of a source that is longer than the model
 * looks at, so that the result lasts as long. */
static double rate_of(const struct work *work)
{
    const struct job_result *result = work->asks[0].result;
    const struct tensor_view *pixels = job_result_tensor(result, "pixels");
    for (int i = 0; i < work->node->kind->inputs; i++) {
        const cJSON *entry = work->node->kind->input[i].entry;
        const char *becomes = json_text(entry, "becomes");
        if (becomes && !strcmp(becomes, "rate_of") && json_text(entry, "output"))
            return value_number(work->input[i].items[0]);
    }
    if (work->source_seconds > SAMPLING_MAX_SECONDS && pixels)
        return (double)pixels->shape[1] / work->source_seconds;
    const cJSON *fps = cJSON_GetObjectItemCaseSensitive(job_result_fields(result), "fps");
    return cJSON_IsNumber(fps) && fps->valuedouble > 0 ? fps->valuedouble : SAMPLING_FPS;
}

/* The file whose sound a video has, or NULL. */
static const char *sound_file_of(const struct value *video)
{
    if (!video || video->kind != VALUE_VIDEO)
        return NULL;
    return video->text ? video->text : video->sound ? video->sound->text : NULL;
}

static struct value *sound_of(const struct work *work)
{
    const char *file = sound_file_of(work_value(work, "video"));
    struct value *sound = value_new(file ? VALUE_AUDIO : VALUE_NOTHING);
    if (sound && file && !(sound->text = strdup(file))) {
        value_release(sound);
        return NULL;
    }
    return sound;
}

static int give_video(struct work *work, int output, struct error *error)
{
    struct value *video = value_new(VALUE_VIDEO);
    const struct part part = part_at(work, 0);
    int code = video ? pictures_of_result(&video->pictures, &part, error)
                     : error_set(error, ERROR_NO_MEMORY, "no memory for a video");
    if (!code) {
        video->number = rate_of(work);
        struct value *sound = sound_of(work);
        if (sound && sound->kind == VALUE_AUDIO)
            video->sound = sound;
        else
            value_release(sound);
        return work_give(work, output, video, error);
    }
    value_release(video);
    return code;
}

/* ---- Latents ---- */

/* Latents of all parts, one after the other. Those of an edit that changes nothing count once for each result. */
static int join_latents(struct latent *out, const struct work *work, struct error *error)
{
    int code = 0;
    for (int i = 0; !code && i < parts_of(work); i++) {
        const struct part part = part_at(work, i);
        const int times = part.edit && part.edit->is_empty ? batch_of(work) : 1;
        struct latent one;
        code = latents_take(&one, job_result_tensor(part.result, "latents"), NULL, error);
        for (int time = 0; !code && time < times; time++) {
            const size_t before = out->samples ? latent_values(out) : 0, values = latent_values(&one);
            if (out->samples && memcmp(out->shape + 1, one.shape + 1, sizeof one.shape - sizeof *one.shape) != 0) {
                code = error_set(error, ERROR_BAD_REQUEST,
                                 "the results have different sizes, which do not go into one batch");
                break;
            }
            float *samples = realloc(out->samples, (before + values) * sizeof *samples);
            if (!samples) {
                code = error_set(error, ERROR_NO_MEMORY, "no memory for latents");
                break;
            }
            memcpy(samples + before, one.samples, values * sizeof *samples);
            const int batch = out->samples ? out->shape[0] : 0;
            memcpy(out->shape, one.shape, sizeof out->shape);
            out->shape[0] = batch + one.shape[0];
            out->samples = samples;
        }
        free(one.samples);
    }
    if (!code && !(out->receipt = receipt_of_picture(job_result_fields(part_at(work, 0).result), 0)))
        code = error_set(error, ERROR_NO_MEMORY, "no memory for receipts");
    return code;
}

/* Of a sampler: with what is left of the latent that it started from. */
static int sampled_latent(struct latent *out, const struct work *work, const struct latent *from, struct error *error)
{
    const struct job_result *result = work->asks[0].result;
    int code =
        latents_take(out, job_result_tensor(result, "latents"), job_result_tensor(result, "latent_state"), error);
    if (code)
        return code;
    out->receipt = receipt_of_picture(job_result_fields(result), 0);
    const size_t bytes = (size_t)from->shape[0] * sizeof *from->noise_places;
    if (from->noise_places && (out->noise_places = malloc(bytes + 1)))
        memcpy(out->noise_places, from->noise_places, bytes);
    return out->receipt && (!from->noise_places || out->noise_places)
               ? 0
               : error_set(error, ERROR_NO_MEMORY, "no memory for latents");
}

static int give_latents(struct work *work, int output, struct error *error)
{
    struct value *value = value_new(VALUE_LATENT);
    const struct value *from = work_value(work, "latent_image");
    int code = !value  ? error_set(error, ERROR_NO_MEMORY, "no memory for latents")
               : from ? sampled_latent(&value->latent, work, &from->latent, error)
                      : join_latents(&value->latent, work, error);
    if (!code)
        return work_give(work, output, value, error);
    value_release(value);
    return code;
}

/* ---- Texts ---- */

static int give_text(struct work *work, int output, struct error *error)
{
    int code = 0;
    for (int i = 0; !code && i < work->ask_count; i++) {
        const char *text = json_text(job_result_fields(work->asks[i].result), "text");
        code = text ? work_give(work, output, value_of_text(text), error)
                    : error_set(error, ERROR_INTERNAL, "the daemon sent no answer to a question");
        if (!code)
            report_text(work->context->report, work->node, text);
    }
    return code;
}

/* How everything was made, as JSON: a receipt, or a list of several. */
static int give_receipt(struct work *work, int output, struct error *error)
{
    cJSON *list = json_array();
    for (int i = 0; i < parts_of(work); i++) {
        const cJSON *receipt = cJSON_GetObjectItemCaseSensitive(job_result_fields(part_at(work, i).result), "receipt");
        json_append(list, receipt ? cJSON_Duplicate(receipt, true) : json_object());
    }
    char *text = list ? json_print_indented(parts_of(work) == 1 ? list->child : list) : NULL;
    struct value *value = text ? value_of_text(text) : NULL;
    cJSON_free(text);
    cJSON_Delete(list);
    return work_give(work, output, value, error);
}

int lance_result_give(struct work *work, struct error *error)
{
    int code = 0;
    for (int i = 0; !code && i < work->node->kind->outputs; i++) {
        const char *is = work->node->kind->output[i].is;
        if (!strcmp(is, "pixels"))
            code = give_pixels(work, i, error);
        else if (!strcmp(is, "video"))
            code = give_video(work, i, error);
        else if (!strcmp(is, "latents"))
            code = give_latents(work, i, error);
        else if (!strcmp(is, "text"))
            code = give_text(work, i, error);
        else if (!strcmp(is, "receipt"))
            code = give_receipt(work, i, error);
        else if (!strcmp(is, "sound"))
            code = work_give(work, i, sound_of(work), error);
        else if (!strcmp(is, "rate"))
            code = work_give(work, i, value_of_number(rate_of(work)), error);
        else
            code = error_set(error, ERROR_INTERNAL, "nodes.json: %s gives \"%s\", which is not known",
                             work->node->kind->id, is);
    }
    for (int i = 0; !code && i < work->ask_count; i++)
        report_receipt(work->context->report,
                       cJSON_GetObjectItemCaseSensitive(job_result_fields(work->asks[i].result), "receipt"));
    work->is_done = !code;
    return code;
}
