/* examples.c: see examples.h. */
#include "tools/lancectl/examples.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mapped_file.h"
#include "base/utf8.h"
#include "base/whole_file.h"
#include "tools/lancectl/complain.h"
#include "tools/lancectl/interrupt.h"
#include "tools/lancectl/output.h"
#include "tools/lancectl/say.h"

static const struct json_limits limits = {64 << 20, 1 << 21, ERROR_TOO_LARGE, ERROR_BAD_FILE};

/* ---- Understanding an entry ---- */

static bool ends_in(const char *text, const char *ending)
{
    size_t length = strlen(text), wanted = strlen(ending);
    return length >= wanted && !strcasecmp(text + length - wanted, ending);
}

/* A text is a prompt, or the three texts of a question. */
static int take_text(struct example *out, const cJSON *text, bool is_target, struct error *error)
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

static int parse_elements(struct example *out, const cJSON *entry, const char **task, struct error *error)
{
    const cJSON *elements = cJSON_GetObjectItemCaseSensitive(entry, "interleave_array");
    const cJSON *kinds = cJSON_GetObjectItemCaseSensitive(entry, "element_dtype_array");
    const cJSON *targets = cJSON_GetObjectItemCaseSensitive(entry, "istarget_in_interleave");
    int count = cJSON_GetArraySize(elements);
    if (count < 1 || cJSON_GetArraySize(kinds) != count || cJSON_GetArraySize(targets) != count)
        return error_set(error, ERROR_BAD_FILE, "is neither a prompt nor an object with interleave_array, element_dtype_array "
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
                return error_set(error, ERROR_UNSUPPORTED, "has more than one picture or video to start from; one is accepted");
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

int example_parse(struct example *out, const cJSON *entry, const char *task, struct error *error)
{
    *out = (struct example){.prompt = ""};
    const char *key = entry->string ? entry->string : "";
    int code = 0;
    if (cJSON_IsString(entry)) {
        out->prompt = entry->valuestring;
        task = task ? task : ends_in(key, ".mp4") ? "t2v" : "t2i";
    } else {
        code = parse_elements(out, entry, &task, error);
    }
    if (!code) {
        out->kind = task_kind_of(task);
        if ((out->kind->source == SOURCE_NONE) != (out->source == NULL))
            code = error_set(error, ERROR_BAD_FILE, "%s, and %s takes %s", out->source ? "has a source" : "is a prompt alone", task,
                             out->source ? "none" : "a picture or video");
    }
    return code ? error_prefix(error, "entry \"%s\"", key) : 0;
}

/* ---- Names ---- */

char *example_name(const char *key)
{
    static const char *const endings[] = {".png", ".mp4", ".jpg", ".jpeg"};
    size_t length = strlen(key);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (ends_in(key, endings[i]) && strlen(endings[i]) < length) {
            length -= strlen(endings[i]);
            break;
        }
    bool is_number = length > 0 && length < 18;
    for (size_t i = 0; i < length; i++)
        is_number = is_number && isdigit((unsigned char)key[i]);
    char *name;
    int made = is_number ? asprintf(&name, "%06lld", strtoll(key, NULL, 10)) : asprintf(&name, "%.*s", (int)length, key);
    if (made >= 0)
        utf8_make_line(name); /* it is printed, too */
    for (char *c = made < 0 ? NULL : name; c && *c; c++)
        if (*c == '/' || (*c == '.' && c == name)) /* stays in the folder, and visible */
            *c = '_';
    return made < 0 ? NULL : name;
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

/* ---- Running ---- */

/* A run under way: what has been written down so far. */
struct run {
    struct session *session;
    const struct arguments *arguments;
    cJSON *prompts; /* output name -> prompt */
    cJSON *answers; /* list of {image or video, question, answer} */
    int failed;
    enum exit_code exit_code; /* of the first that failed */
};

static void note_answer(struct run *run, const struct example *example, const char *answer)
{
    cJSON *note = json_object();
    json_add_text(note, example->kind->source == SOURCE_VIDEO ? "video" : "image", example->source);
    json_add_text(note, "question", example->prompt);
    json_add_text(note, "answer", answer);
    json_append(run->answers, note);
}

static enum exit_code make_example(struct run *run, const cJSON *entry)
{
    const struct arguments *arguments = run->arguments;
    struct error error;
    struct example example;
    if (example_parse(&example, entry, arguments->task, &error)) {
        complain(error.code, &error);
        return error.code == ERROR_BAD_REQUEST ? EXIT_USAGE : EXIT_NOT_READ;
    }
    char *name = example_name(entry->string), *output = NULL, *answer = NULL, *source = NULL;
    bool is_complete = name && asprintf(&output, "%s/%s.%s", arguments->output, name,
                                        example.kind->makes_video ? "mp4" : "png") >= 0;
    if (is_complete && example.source)
        is_complete = (source = example_source_path(example.source, arguments->examples, arguments->root)) != NULL;
    enum exit_code exit_code = EXIT_FAILED;
    if (!is_complete) {
        error_set(&error, ERROR_NO_MEMORY, "no memory for entry \"%s\"", entry->string);
        complain(error.code, &error);
    } else if (output_check(output, 1, &error)) {
        complain(error.code, &error);
        exit_code = EXIT_NOT_WRITTEN;
    } else {
        const struct task_wish wish = {.kind = example.kind,
                                       .source = source,
                                       .prompt = example.prompt,
                                       .system = example.system,
                                       .output = output,
                                       .answer = example.kind->answers ? &answer : NULL};
        exit_code = task_make(run->session, &wish, arguments);
    }
    if (exit_code == EXIT_OK && answer) {
        note_answer(run, &example, answer);
        if (!arguments->json)
            say(stdout, "%s: %s\n", entry->string, answer);
    } else if (exit_code == EXIT_OK) {
        json_add_text(run->prompts, strrchr(output, '/') + 1, example.prompt);
    }
    free(answer);
    free(source);
    free(output);
    free(name);
    return exit_code;
}

/* Write JSON into the folder, unless there is nothing in it. */
static int write_notes(const struct run *run, const char *name, const cJSON *notes, struct error *error)
{
    if (notes && cJSON_GetArraySize(notes) == 0)
        return 0;
    char *path = NULL, *text = json_print_indented(notes);
    int code = 0;
    if (!text || asprintf(&path, "%s/%s", run->arguments->output, name) < 0)
        code = error_set(error, ERROR_NO_MEMORY, "no memory for %s", name);
    struct whole_file file;
    if (!code)
        code = whole_file_begin(&file, path, error);
    if (!code) {
        bool is_written = dprintf(file.descriptor, "%s\n", text) > 0;
        code = whole_file_end(&file, is_written ? NULL : strerror(errno), error);
    }
    free(path);
    cJSON_free(text);
    return code;
}

static int read_examples(cJSON **out, const char *path, struct error *error)
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
    return error_set(error, ERROR_BAD_FILE, "%s: is no JSON object with an entry per key, as the official example files are", path);
}

enum exit_code examples_run(struct session *session, const struct arguments *arguments)
{
    struct error error;
    cJSON *examples = NULL;
    if (read_examples(&examples, arguments->examples, &error)) {
        complain(error.code, &error);
        return EXIT_NOT_READ;
    }
    if (mkdir(arguments->output, 0777) && errno != EEXIST) {
        error_set(&error, ERROR_IO, "cannot make the folder %s: %s", arguments->output, strerror(errno));
        complain(error.code, &error);
        cJSON_Delete(examples);
        return EXIT_NOT_WRITTEN;
    }
    struct run run = {.session = session,
                      .arguments = arguments,
                      .prompts = json_object(),
                      .answers = json_array()};
    int count = cJSON_GetArraySize(examples), at = 0;
    const cJSON *entry;
    cJSON_ArrayForEach(entry, examples)
    {
        if (!arguments->quiet)
            say(stderr, "%s (%d of %d)\n", entry->string, ++at, count);
        enum exit_code exit_code = make_example(&run, entry);
        if (exit_code == EXIT_OK)
            continue;
        run.failed++;
        run.exit_code = run.exit_code ? run.exit_code : exit_code;
        /* With these, the others would fail the same way. */
        if (interrupt_signal() || exit_code == EXIT_USAGE || exit_code == EXIT_NO_DAEMON || exit_code == EXIT_NOT_WRITTEN)
            break;
    }
    if (run.failed)
        fprintf(stderr, "lancectl: %d of %d entries were not made\n", run.failed, count);
    if (write_notes(&run, "prompt.json", run.prompts, &error) || write_notes(&run, "result.json", run.answers, &error)) {
        complain(error.code, &error);
        run.exit_code = EXIT_NOT_WRITTEN;
    }
    cJSON_Delete(run.prompts);
    cJSON_Delete(run.answers);
    cJSON_Delete(examples);
    return run.exit_code;
}
