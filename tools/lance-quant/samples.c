/* samples.c: see samples.h. */
#include "tools/lance-quant/samples.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mapped_file.h"
#include "tools/media/example_file.h"
#include "tools/media/still.h"
#include "tools/media/video_file.h"

enum { MOST_SAMPLES = 1 << 16, MOST_SOURCE_BYTES = 1 << 30 };

static int no_memory(struct error *error)
{
    return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for the list of samples");
}

/* A sample with copies of the texts; `source` becomes its own even when this fails. */
static int add(struct samples *samples, enum lance_task task, const char *prompt, size_t prompt_bytes,
               const char *system, char *source, struct error *error)
{
    struct sample *list = realloc(samples->list, sizeof *list * ((size_t)samples->count + 1));
    if (!list) {
        free(source);
        return no_memory(error);
    }
    samples->list = list;
    struct sample *sample = &list[samples->count++];
    *sample = (struct sample){task, strndup(prompt, prompt_bytes), system ? strdup(system) : NULL, source};
    if (!sample->prompt || (system && !sample->system) ||
        (task_has_source(task) && !source))
        return no_memory(error);
    return samples->count <= MOST_SAMPLES
               ? 0
               : error_set(error, ERROR_BAD_FILE, "more than %d samples; say --samples", MOST_SAMPLES);
}

static int add_examples(struct samples *samples, const struct sample_files *files, struct error *error)
{
    cJSON *object;
    int code = example_file_read(&object, files->examples, error), taken = 0;
    const cJSON *entry = code == 0 ? object->child : NULL;
    for (; entry && code == 0 && (files->most == 0 || taken < files->most); entry = entry->next, taken++) {
        struct example_entry found;
        code = example_entry_parse(&found, entry, lance_task_name(files->task), error);
        if (code == 0 && task_has_source(files->task) != (found.source != NULL))
            code = error_set(error, ERROR_BAD_FILE, "entry \"%s\" %s, and %s takes %s", entry->string,
                             found.source ? "has a source" : "is a prompt alone", lance_task_name(files->task),
                             found.source ? "none" : "a picture or video");
        if (code == 0)
            code = add(samples, files->task, found.prompt, strlen(found.prompt), found.system,
                       found.source ? example_source_path(found.source, files->examples, NULL) : NULL, error);
        if (code != 0)
            error_prefix(error, "%s", files->examples);
    }
    if (object)
        cJSON_Delete(object);
    return code;
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* Names in the order of their bytes, whatever the locale. */
static int compare_names(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int add_lines(struct samples *samples, const struct sample_files *files, const char *text, const char *end,
                     struct dirent **pictures, int picture_count, struct error *error)
{
    int code = 0, taken = 0;
    for (const char *line = text; line < end && code == 0 && (files->most == 0 || taken < files->most);) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        const size_t length = (size_t)((stop ? stop : end) - line);
        const size_t bytes = length - (length > 0 && line[length - 1] == '\r');
        if (bytes > 0) {
            char *source = NULL;
            if (picture_count > 0 &&
                asprintf(&source, "%s/%s", files->pictures, pictures[taken % picture_count]->d_name) < 0)
                source = NULL; /* which add calls no memory */
            code = add(samples, files->task, line, bytes, NULL, source, error);
            taken++;
        }
        line += length + 1;
    }
    if (code == 0 && taken == 0)
        code = error_set(error, ERROR_BAD_FILE, "%s: has no prompt", files->prompts);
    return code;
}

static int add_prompts(struct samples *samples, const struct sample_files *files, struct error *error)
{
    const char *task = lance_task_name(files->task);
    struct dirent **pictures = NULL;
    struct mapped_file text;
    int count = 0;
    if (task_has_source(files->task) != (files->pictures != NULL))
        return error_set(error, ERROR_BAD_FILE, "%s: %s takes %s", files->prompts, task,
                         files->pictures ? "no --pictures" : "--pictures, a folder of what it starts from");
    if (files->pictures && (count = scandir(files->pictures, &pictures, is_visible, compare_names)) <= 0)
        return error_set(error, ERROR_IO, "%s: has no pictures or cannot be read", files->pictures);
    int code = mapped_file_open(&text, files->prompts, error);
    if (code == 0) {
        const char *start = (const char *)text.data;
        code = add_lines(samples, files, start, start + text.bytes, pictures, count, error);
        mapped_file_close(&text);
    }
    for (int i = 0; i < count; i++)
        free(pictures[i]);
    free(pictures);
    return code;
}

int samples_add(struct samples *samples, const struct sample_files *files, struct error *error)
{
    return files->examples ? add_examples(samples, files, error) : add_prompts(samples, files, error);
}

void samples_free(struct samples *samples)
{
    for (int i = 0; i < samples->count; i++) {
        free(samples->list[i].prompt);
        free(samples->list[i].system);
        free(samples->list[i].source);
    }
    free(samples->list);
    *samples = (struct samples){0};
}

static void digest_text(struct sha256 *digest, const char *text)
{
    sha256_add(digest, text ? text : "", text ? strlen(text) + 1 : 1);
}

void samples_digest(const struct samples *samples, struct sha256 *digest)
{
    for (int i = 0; i < samples->count; i++) {
        const struct sample *sample = &samples->list[i];
        digest_text(digest, lance_task_name(sample->task));
        digest_text(digest, sample->prompt);
        digest_text(digest, sample->system);
        digest_text(digest, sample->source);
    }
}

/* --- Requests ------------------------------------------------------------------------------------------ */

static int read_source(struct lance_media *media, const char *path, struct error *error)
{
    struct clip clip = {0};
    const int code = still_is_one(path) && !still_is_gif(path)
                           ? still_read_clip(&clip, path, false, MOST_SOURCE_BYTES, error)
                           : video_read(&clip, path, 0, MOST_SOURCE_BYTES, error);
    *media = (struct lance_media){clip.pixels, clip.frames, clip.height, clip.width, clip.fps};
    return code;
}

int sample_open(struct sample_request *out, const struct samples *samples, int index, const struct sample_sizes *sizes,
                struct error *error)
{
    const struct sample *sample = &samples->list[index];
    *out = (struct sample_request){0};
    lance_request_init(&out->request, sample->task);
    const int code = sample->source ? read_source(&out->source, sample->source, error) : 0;
    out->request.prompt = sample->prompt;
    out->request.system_prompt = sample->system;
    out->request.source = sample->source ? &out->source : NULL;
    out->request.seed = sizes->seed + (uint64_t)index;
    if (sizes->steps > 0)
        out->request.num_inference_steps = sizes->steps;
    if (sizes->width > 0 && !sample->source) {
        out->request.width = sizes->width;
        out->request.height = sizes->height;
    }
    if (sizes->frames > 0 && (sample->task == LANCE_T2V || sample->task == LANCE_I2V))
        out->request.num_frames = sizes->frames;
    if (sizes->resolution && sample->source)
        out->request.resolution = sizes->resolution;
    return code;
}

void sample_close(struct sample_request *request)
{
    free((uint8_t *)(uintptr_t)request->source.pixels);
    *request = (struct sample_request){0};
}
