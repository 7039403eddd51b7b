/* text_to_image.c: see text_to_image.h. */
#include "tools/lancectl/text_to_image.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "tools/lancectl/complain.h"
#include "tools/lancectl/interrupt.h"
#include "tools/lancectl/picture_file.h"
#include "tools/lancectl/progress.h"
#include "tools/lancectl/result.h"

static bool add_number(cJSON *params, const char *name, struct optional_number number)
{
    return !number.given || cJSON_AddNumberToObject(params, name, number.value);
}

static bool add_text(cJSON *params, const char *name, const char *text)
{
    return !text || cJSON_AddStringToObject(params, name, text);
}

static bool add_interval(cJSON *params, const struct arguments *arguments)
{
    if (!arguments->interval_low.given)
        return true;
    const double bounds[2] = {arguments->interval_low.value, arguments->interval_high.value};
    return cJSON_AddItemToObject(params, "guidance_interval", cJSON_CreateDoubleArray(bounds, 2));
}

cJSON *text_to_image_params(const struct arguments *arguments)
{
    cJSON *params = cJSON_CreateObject();
    bool is_complete = params && add_text(params, "prompt", arguments->operand) &&
                       add_number(params, "width", arguments->width) &&
                       add_number(params, "height", arguments->height) &&
                       add_number(params, "num_inference_steps", arguments->steps) &&
                       add_number(params, "guidance_scale", arguments->guidance) &&
                       add_interval(params, arguments) && add_text(params, "guidance_renorm", arguments->renorm) &&
                       add_number(params, "timestep_shift", arguments->shift) &&
                       add_number(params, "batch_size", arguments->count) &&
                       add_text(params, "noise_source", arguments->noise) &&
                       (!arguments->seed_given ||
                        cJSON_AddItemToObject(params, "seed", json_from_uint64(arguments->seed))) &&
                       (!arguments->preview || cJSON_AddTrueToObject(params, "preview"));
    if (is_complete)
        return params;
    cJSON_Delete(params);
    return NULL;
}

static int submit(struct session *session, const char *job, const struct arguments *arguments, struct error *error)
{
    cJSON *fields = cJSON_CreateObject();
    cJSON *params = text_to_image_params(arguments);
    bool is_complete = fields && params && cJSON_AddStringToObject(fields, "job", job) &&
                       cJSON_AddStringToObject(fields, "task", "t2i");
    if (!is_complete || !cJSON_AddItemToObject(fields, "params", params)) {
        cJSON_Delete(fields);
        cJSON_Delete(params);
        return error_set(error, ERROR_NO_MEMORY, "submit: no memory");
    }
    return session_request(session, "submit", fields, NULL, error);
}

/* What following a job needs to know and finds out. */
struct watch {
    struct progress progress;
    const char *preview_path; /* or NULL */
    bool preview_failed;      /* said once; the job goes on */
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

static bool on_event(void *context, const cJSON *event, const struct tensor_view *preview)
{
    struct watch *watch = context;
    if (event) {
        const char *name = json_text(event, "event");
        watch->job_failed = watch->job_failed || (name && !strcmp(name, "failed"));
        progress_show(&watch->progress, event);
    }
    if (preview && watch->preview_path)
        write_preview(watch, preview);
    return interrupt_signal() != 0;
}

/* What to say and return when the job did not come to a result. */
static enum exit_code explain_end(const struct watch *watch, int code, const struct error *error)
{
    if (code == ERROR_CANCELLED && interrupt_signal()) {
        fprintf(stderr, "lancectl: cancelled\n");
        return (enum exit_code)(EXIT_INTERRUPTED + interrupt_signal());
    }
    enum exit_code exit_code = complain(code, error);
    return watch->job_failed && exit_code == EXIT_NO_DAEMON ? EXIT_FAILED : exit_code;
}

enum exit_code text_to_image(struct session *session, const struct arguments *arguments)
{
    struct error error;
    if (picture_check_folder(arguments->output, &error) ||
        (arguments->preview && picture_check_folder(arguments->preview, &error))) {
        complain(error.code, &error);
        return EXIT_NOT_WRITTEN;
    }
    char job[JOB_ID_MAX_BYTES + 1];
    job_id_make(job);
    if (arguments->job)
        snprintf(job, sizeof job, "%s", arguments->job);
    int code = submit(session, job, arguments, &error);
    if (code)
        return complain(code, &error);

    struct watch watch = {.preview_path = arguments->preview};
    progress_start(&watch.progress, stderr, arguments->quiet);
    if (!arguments->quiet && !watch.progress.is_terminal)
        fprintf(stderr, "job %s\n", job);
    code = client_follow(session->client, job, on_event, &watch, &error);
    progress_end(&watch.progress);
    return code ? explain_end(&watch, code, &error) : result_save(session, job, arguments);
}
