/* submission.c: see submission.h. */
#include "tools/lancectl/submission.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "protocol/transfer.h"
#include "tools/lancectl/complain.h"
#include "tools/lancectl/interrupt.h"
#include "tools/lancectl/output.h"
#include "tools/lancectl/progress.h"
#include "tools/lancectl/say.h"
#include "tools/media/picture_file.h"

cJSON *job_params(const struct job *job, const struct arguments *arguments)
{
    cJSON *params = json_object();
    if (job->prompt)
        json_add_text(params, "prompt", job->prompt);
    if (job->system && !arguments_given(arguments, "system"))
        json_add_text(params, "system_prompt", job->system);
    parameter_options_add(params, arguments->given);
    if (job->keeps_latents)
        json_add_bool(params, "decode", false);
    if (job->source && job->source->fps > 0)
        json_add_number(params, "fps", job->source->fps);
    if (arguments->preview)
        json_add_bool(params, "preview", true);
    if (json_is_complete(params))
        return params;
    cJSON_Delete(params);
    return NULL;
}

uint64_t job_source_limit(const struct session *session)
{
    uint64_t limit = 0;
    const cJSON *limits = cJSON_GetObjectItemCaseSensitive(client_hello(session->client), "limits");
    json_uint64(cJSON_GetObjectItemCaseSensitive(limits, "blob_bytes"), &limit);
    return sampling_source_bytes(limit);
}

/* The tensor of the source. */
static struct tensor_view view_of(const struct clip *clip)
{
    uint64_t frames = (uint64_t)clip->frames, height = (uint64_t)clip->height, width = (uint64_t)clip->width;
    return (struct tensor_view){.name = "source",
                                .dtype = DTYPE_U8,
                                .dimensions = 4,
                                .shape = {frames, height, width, 3},
                                .data = clip->pixels,
                                .bytes = frames * height * width * 3};
}

static bool on_sent(void *context, uint64_t moved_bytes, uint64_t total_bytes)
{
    progress_show_transfer(context, "sending", moved_bytes, total_bytes);
    return interrupt_signal() != 0;
}

static int submit(struct session *session, const struct job *job, const struct arguments *arguments,
                  struct error *error)
{
    cJSON *fields = json_object();
    json_add_text(fields, "job", job->id);
    json_add_text(fields, "task", job->task);
    json_add(fields, "params", job_params(job, arguments));
    if (arguments->no_cache)
        json_add_bool(fields, "cache", false);
    if (!json_is_complete(fields)) {
        cJSON_Delete(fields);
        return error_set(error, ERROR_NO_MEMORY, "submit: no memory");
    }
    struct tensor_view tensors[3];
    size_t count = 0;
    if (job->source)
        tensors[count++] = view_of(job->source);
    for (size_t i = 0; job->latents && i < job->latents->count; i++)
        tensors[count++] = job->latents->tensors[i];
    struct progress progress;
    progress_start(&progress, stderr, arguments->quiet);
    const struct transfer_watch watch = {.on_progress = on_sent, .context = &progress};
    int code = transfer_submit(session->client, fields, tensors, count, &watch, error);
    progress_end(&progress);
    cJSON_Delete(fields);
    return code;
}

/* What following a job needs to know and finds out. */
struct watch {
    struct progress progress;
    const char *preview_path; /* or NULL */
    bool preview_failed;      /* said once; the job goes on */
    bool shows_text;          /* print the answer as it comes */
    bool has_text;            /* some of it stands there */
    bool answers_stdout;      /* see struct job */
    bool reader_is_gone;      /* of the answer: the job is cancelled */
    bool job_failed;          /* the daemon told so, as opposed to a lost connection */
};

static void write_preview(struct watch *watch, const struct tensor_view *picture)
{
    const uint64_t *shape = picture->shape;
    if (watch->preview_failed || picture->dtype != DTYPE_U8 || picture->dimensions != 4 || shape[3] != 3 ||
        shape[0] == 0 || shape[1] == 0 || shape[1] > INT_MAX || shape[2] == 0 || shape[2] > INT_MAX)
        return;
    struct error error;
    int code = picture_write(watch->preview_path, picture->data, (int)shape[2], (int)shape[1], NULL, &error);
    if (code) {
        progress_end(&watch->progress);
        complain(code, &error);
        watch->preview_failed = true;
    }
}

/* The next piece of an answer. It goes where the line of progress was. */
static void show_text(struct watch *watch, const char *text)
{
    if (!watch->has_text)
        progress_clear(&watch->progress);
    watch->has_text = true;
    say(stdout, "%s", text);
    fflush(stdout);
}

static bool on_event(void *context, const cJSON *event, const struct tensor_view *preview)
{
    struct watch *watch = context;
    const char *name = event ? json_text(event, "event") : NULL;
    const char *text = name && !strcmp(name, "text") ? json_text(event, "text") : NULL;
    if (watch->has_text && name && !strcmp(name, "started")) { /* a daemon that was started again tells it anew */
        say(stdout, "\n");
        watch->has_text = false;
    }
    watch->job_failed = watch->job_failed || (name && !strcmp(name, "failed"));
    if (watch->shows_text && text)
        show_text(watch, text);
    else if (event && !watch->has_text)
        progress_show(&watch->progress, event);
    if (preview && watch->preview_path)
        write_preview(watch, preview);
    watch->reader_is_gone = watch->reader_is_gone || (watch->answers_stdout && output_is_closed());
    return interrupt_signal() != 0 || watch->reader_is_gone;
}

/* What to say and return when the job did not come to a result. */
static enum exit_code explain_end(const struct watch *watch, int code, const struct error *error)
{
    if (code == ERROR_CANCELLED && interrupt_signal()) {
        fprintf(stderr, "lancectl: cancelled\n");
        return (enum exit_code)(EXIT_INTERRUPTED + interrupt_signal());
    }
    if (code == ERROR_CANCELLED && watch->reader_is_gone) {
        fprintf(stderr, "lancectl: the standard output was closed; the job is cancelled\n");
        return EXIT_NOT_WRITTEN;
    }
    enum exit_code exit_code = complain(code, error);
    if (code == ERROR_IO && interrupt_signal())
        return (enum exit_code)(EXIT_INTERRUPTED + interrupt_signal());
    return watch->job_failed && exit_code == EXIT_NO_DAEMON ? EXIT_FAILED : exit_code;
}

enum exit_code job_run(struct session *session, const struct job *job, const struct arguments *arguments)
{
    struct error error;
    int code = submit(session, job, arguments, &error);
    if (code == ERROR_BUSY && arguments->waits && !arguments->quiet)
        say(stderr, "lancectl: %s; waiting\n", error.text);
    while (code == ERROR_BUSY && arguments->waits && !interrupt_signal()) {
        sleep(1);
        code = submit(session, job, arguments, &error);
    }
    if (code == ERROR_CANCELLED && interrupt_signal())
        fprintf(stderr, "lancectl: cancelled\n");
    if ((code == ERROR_BUSY || code == ERROR_CANCELLED) && interrupt_signal())
        return (enum exit_code)(EXIT_INTERRUPTED + interrupt_signal());
    if (code)
        return complain(code, &error);
    struct watch watch = {
        .preview_path = arguments->preview, .shows_text = job->shows_text, .answers_stdout = job->answers_stdout};
    progress_start(&watch.progress, stderr, arguments->quiet);
    if (!arguments->quiet && !watch.progress.is_terminal)
        fprintf(stderr, "job %s\n", job->id);
    code = client_follow(session->client, job->id, on_event, &watch, &error);
    progress_end(&watch.progress);
    if (watch.has_text)
        putchar('\n');
    return code ? explain_end(&watch, code, &error) : EXIT_OK;
}
