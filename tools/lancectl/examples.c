/* examples.c: see examples.h. */
#include "tools/lancectl/examples.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/utf8.h"
#include "base/whole_file.h"
#include "tools/lancectl/complain.h"
#include "tools/lancectl/interrupt.h"
#include "tools/lancectl/output.h"
#include "tools/lancectl/say.h"
#include "tools/media/example_file.h"

/* ---- Understanding an entry ---- */

int example_parse(struct example *out, const cJSON *entry, const char *task, struct error *error)
{
    struct example_entry found;
    int code = example_entry_parse(&found, entry, task, error);
    if (code)
        return code;
    const struct task_kind *kind = task_kind_of(found.task);
    *out = (struct example){kind, found.source, found.prompt, found.system};
    if ((kind->source == SOURCE_NONE) == (!found.source))
        return 0;
    error_set(error, ERROR_BAD_FILE, "%s, and %s takes %s", found.source ? "has a source" : "is a prompt alone",
              kind->name, found.source ? "none" : "a picture or video");
    return error_prefix(error, "entry \"%s\"", entry->string ? entry->string : "");
}

/* ---- Names ---- */

char *example_name(const char *key)
{
    static const char *const endings[] = {".png", ".mp4", ".jpg", ".jpeg"};
    size_t length = strlen(key);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (example_ends_in(key, endings[i]) && strlen(endings[i]) < length) {
            length -= strlen(endings[i]);
            break;
        }
    bool is_number = length > 0 && length < 18;
    for (size_t i = 0; i < length; i++)
        is_number = is_number && isdigit((unsigned char)key[i]);
    char *name;
    int made =
        is_number ? asprintf(&name, "%06lld", strtoll(key, NULL, 10)) : asprintf(&name, "%.*s", (int)length, key);
    if (made >= 0)
        utf8_make_line(name); /* it is printed, too */
    for (char *c = made < 0 ? NULL : name; c && *c; c++)
        if (*c == '/' || (*c == '.' && c == name)) /* stays in the folder, and visible */
            *c = '_';
    return made < 0 ? NULL : name;
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

enum exit_code examples_run(struct session *session, const struct arguments *arguments)
{
    struct error error;
    cJSON *examples = NULL;
    if (example_file_read(&examples, arguments->examples, &error)) {
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
        if (interrupt_signal() || exit_code == EXIT_USAGE || exit_code == EXIT_NO_DAEMON ||
            exit_code == EXIT_NOT_WRITTEN)
            break;
    }
    if (run.failed)
        fprintf(stderr, "lancectl: %d of %d entries were not made\n", run.failed, count);
    if (write_notes(&run, "prompt.json", run.prompts, &error) ||
        write_notes(&run, "result.json", run.answers, &error)) {
        complain(error.code, &error);
        run.exit_code = EXIT_NOT_WRITTEN;
    }
    cJSON_Delete(run.prompts);
    cJSON_Delete(run.answers);
    cJSON_Delete(examples);
    return run.exit_code;
}
