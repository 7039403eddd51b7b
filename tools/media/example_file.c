/* example_file.c: see example_file.h. */
#include "tools/media/example_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/mapped_file.h"

static const struct json_limits limits = {64 << 20, 1 << 21, ERROR_TOO_LARGE, ERROR_BAD_FILE};

bool example_ends_in(const char *text, const char *ending)
{
    size_t length = strlen(text), wanted = strlen(ending);
    return length >= wanted && !strcasecmp(text + length - wanted, ending);
}

/* A text is a prompt, or the three texts of a question. */
static int take_text(struct example_entry *out, const cJSON *text, bool is_target, struct error *error)
{
    if (cJSON_IsString(text)) {
        if (!is_target) /* as a target it is the expected answer to no question in particular */
            out->prompt = text->valuestring;
        return 0;
    }
    const char *system = cJSON_GetStringValue(cJSON_GetArrayItem(text, 0));
    const char *question = cJSON_GetStringValue(cJSON_GetArrayItem(text, 1));
    if (!system || !question)
        return error_set(error, ERROR_BAD_FILE, "a text is neither a string nor [system prompt, question, answer]");
    out->system = system;
    out->prompt = question;
    return 0;
}

/* The task that an entry with these elements is for, when nobody said. */
static const char *guess_task(const char *source_kind, bool has_answer)
{
    if (has_answer)
        return !strcmp(source_kind, "image") ? "x2t_image" : "x2t_video";
    return !strcmp(source_kind, "video") ? "video_edit" : NULL;
}

static int parse_elements(struct example_entry *out, const cJSON *entry, const char **task, struct error *error)
{
    const cJSON *elements = cJSON_GetObjectItemCaseSensitive(entry, "interleave_array");
    const cJSON *kinds = cJSON_GetObjectItemCaseSensitive(entry, "element_dtype_array");
    const cJSON *targets = cJSON_GetObjectItemCaseSensitive(entry, "istarget_in_interleave");
    int count = cJSON_GetArraySize(elements);
    if (count < 1 || cJSON_GetArraySize(kinds) != count || cJSON_GetArraySize(targets) != count)
        return error_set(error, ERROR_BAD_FILE,
                         "is neither a prompt nor an object with interleave_array, element_dtype_array "
                         "and istarget_in_interleave of one length");
    const char *source_kind = NULL;
    bool has_answer = false;
    for (int i = 0; i < count; i++) {
        const cJSON *element = cJSON_GetArrayItem(elements, i);
        const char *kind = cJSON_GetStringValue(cJSON_GetArrayItem(kinds, i));
        const cJSON *target = cJSON_GetArrayItem(targets, i);
        bool is_target = cJSON_IsTrue(target) || (cJSON_IsNumber(target) && target->valuedouble != 0);
        if (kind && !strcmp(kind, "text")) {
            int code = take_text(out, element, is_target, error);
            if (code)
                return code;
            has_answer = has_answer || is_target;
        } else if (kind && (!strcmp(kind, "image") || !strcmp(kind, "video"))) {
            if (!cJSON_IsString(element))
                return error_set(error, ERROR_BAD_FILE, "an element of kind %s is no path", kind);
            if (is_target)
                continue; /* what training would compare with */
            if (out->source)
                return error_set(error, ERROR_UNSUPPORTED,
                                 "has more than one picture or video to start from; one is accepted");
            out->source = element->valuestring;
            source_kind = kind;
        } else {
            return error_set(error, ERROR_BAD_FILE, "an element is neither text nor image nor video");
        }
    }
    if (!source_kind)
        return error_set(error, ERROR_BAD_FILE, "has neither picture nor video to start from");
    if (!*task && !(*task = guess_task(source_kind, has_answer)))
        return error_set(error, ERROR_BAD_REQUEST, "may be for image_edit or i2v; say which with --task");
    return 0;
}

int example_entry_parse(struct example_entry *out, const cJSON *entry, const char *task, struct error *error)
{
    *out = (struct example_entry){.prompt = ""};
    const char *key = entry->string ? entry->string : "";
    int code = 0;
    if (cJSON_IsString(entry)) {
        out->prompt = entry->valuestring;
        task = task ? task : example_ends_in(key, ".mp4") ? "t2v" : "t2i";
    } else {
        code = parse_elements(out, entry, &task, error);
    }
    out->task = task;
    return code ? error_prefix(error, "entry \"%s\"", key) : 0;
}

char *example_source_path(const char *path, const char *examples, const char *root)
{
    char *found = NULL;
    if (*path == '/')
        return strdup(path);
    if (root)
        return asprintf(&found, "%s/%s", root, path) < 0 ? NULL : found;
    char *folder = realpath(examples, NULL);
    for (char *slash; folder && (slash = strrchr(folder, '/'));) {
        *slash = '\0';
        if (asprintf(&found, "%s/%s", folder, path) < 0) {
            found = NULL;
            break;
        }
        if (!access(found, F_OK))
            break;
        free(found);
        found = NULL;
    }
    free(folder);
    return found ? found : strdup(path);
}

int example_file_read(cJSON **out, const char *path, struct error *error)
{
    struct mapped_file file;
    int code = mapped_file_open(&file, path, error);
    if (code)
        return code;
    code = json_parse(out, (const char *)file.data, file.bytes, &limits, path, error);
    mapped_file_close(&file);
    if (code || (cJSON_IsObject(*out) && (*out)->child))
        return code;
    cJSON_Delete(*out);
    return error_set(error, ERROR_BAD_FILE,
                     "%s: is no JSON object with an entry per key, as the official example files are", path);
}
