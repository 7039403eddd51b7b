/* short_run.c: see short_run.h. */
#include "tools/lancectl/short_run.h"

#include <string.h>

#include "protocol/transfer.h"
#include "tools/lancectl/interrupt.h"

enum { SIDE = 256, STEPS = 4, TOKENS = 16, PIXELS = 112 };

static bool on_event(void *context, const cJSON *event, const struct tensor_view *preview)
{
    (void)context;
    (void)event;
    (void)preview;
    return interrupt_signal() != 0;
}

/* Whether the model in memory does a task: what `models` says of it. */
static bool makes_pictures(struct client *client)
{
    struct message *answer;
    struct error unused;
    bool makes = true;
    const cJSON *model, *task;
    if (client_request(client, "models", NULL, NULL, 0, &answer, &unused))
        return true;
    cJSON_ArrayForEach(model, cJSON_GetObjectItemCaseSensitive(message_envelope(answer), "models"))
        if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(model, "loaded"))) {
            makes = false;
            cJSON_ArrayForEach(task, cJSON_GetObjectItemCaseSensitive(model, "tasks"))
                makes = makes || (cJSON_IsString(task) && !strcmp(task->valuestring, "t2i"));
        }
    message_close(answer);
    return makes;
}

static int submit(struct client *client, const char *job, const char *task, struct error *error)
{
    static const uint8_t grey[PIXELS * PIXELS * 3] = {128};
    const struct tensor_view source = {.name = "source", .dtype = DTYPE_U8, .dimensions = 4,
                                       .shape = {1, PIXELS, PIXELS, 3}, .data = grey, .bytes = sizeof grey};
    const bool draws = !strcmp(task, "t2i");
    cJSON *fields = json_object();
    json_add_text(fields, "job", job);
    json_add_text(fields, "task", task);
    json_add_bool(fields, "cache", false);
    cJSON *params = json_add_object(fields, "params");
    json_add_text(params, "prompt", draws ? "a red circle" : "What is this?");
    if (draws) {
        json_add_number(params, "width", SIDE);
        json_add_number(params, "height", SIDE);
        json_add_number(params, "num_inference_steps", STEPS);
    } else {
        json_add_number(params, "max_new_tokens", TOKENS);
    }
    const int code = json_is_complete(fields)
                         ? transfer_submit(client, fields, &source, draws ? 0 : 1, NULL, error)
                         : error_set(error, ERROR_NO_MEMORY, "submit: no memory");
    cJSON_Delete(fields);
    return code;
}

/* The times of the stages in the receipt. */
static void read_times(struct short_run *run, const cJSON *receipt, const char *stage)
{
    const cJSON *item;
    run->total_seconds = json_number(receipt, "total_seconds");
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(receipt, "stages"))
    {
        const char *name = json_text(item, "stage");
        if (name && !strcmp(name, stage) && json_number(item, "steps") > 0)
            run->step_seconds = json_number(item, "seconds") / json_number(item, "steps");
    }
}

int short_run(struct short_run *run, struct client *client, struct error *error)
{
    char job[JOB_ID_MAX_BYTES + 1];
    const bool draws = makes_pictures(client);
    *run = (struct short_run){.task = draws ? "t2i" : "x2t_image",
                              .what = draws ? "a picture of 256x256 in 4 steps" : "an answer of at most 16 tokens",
                              .step = draws ? "step" : "token"};
    job_id_make(job);
    int code = submit(client, job, run->task, error);
    if (!code)
        code = client_follow(client, job, on_event, NULL, error);
    struct message *answer;
    struct error unused;
    if (!code)
        code = client_job_request(client, "result", job, &answer, error);
    if (!code) {
        const cJSON *receipt = cJSON_GetObjectItemCaseSensitive(message_envelope(answer), "receipt");
        read_times(run, receipt, draws ? "denoise" : "text");
        message_close(answer);
    }
    client_job_request(client, "release", job, NULL, &unused);
    return code;
}
