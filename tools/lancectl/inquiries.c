/* inquiries.c: see inquiries.h. */
#include "tools/lancectl/inquiries.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tools/lancectl/complain.h"
#include "tools/lancectl/latents.h"
#include "tools/lancectl/metrics.h"
#include "tools/lancectl/output.h"
#include "tools/lancectl/say.h"
#include "tools/media/picture_file.h"
#include "tools/media/video_file.h"

/* ---- Printing ---- */

static enum exit_code print_json(const cJSON *object, bool is_formatted)
{
    char *text = is_formatted ? json_print_indented(object) : json_print(object);
    if (text)
        say(stdout, "%s\n", text);
    cJSON_free(text);
    return text ? EXIT_OK : EXIT_FAILED;
}

static const char *text_or(const cJSON *object, const char *name, const char *otherwise)
{
    const char *text = json_text(object, name);
    return text ? text : otherwise;
}

/* Bytes as people read them. */
static void format_bytes(char *out, size_t size, double bytes)
{
    static const char *const units[] = {"bytes", "KB", "MB", "GB", "TB"};
    size_t unit = 0;
    while (bytes >= 1000 && unit < 4) {
        bytes /= 1000;
        unit++;
    }
    snprintf(out, size, unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
}

static bool counts_bytes(const char *name)
{
    static const char ending[] = "bytes";
    size_t length = strlen(name);
    return length >= sizeof ending - 1 && !strcmp(name + length - (sizeof ending - 1), ending);
}

static void print_number(const char *name, double number)
{
    char size[32];
    if (counts_bytes(name)) {
        format_bytes(size, sizeof size, number);
        say(stdout, "  %-28s %s\n", name, size);
    } else {
        say(stdout, "  %-28s %.*f\n", name, number == floor(number) ? 0 : 3, number);
    }
}

/* One value a line, nested names joined by dots: "jobs.done   12". */
static void print_values(const cJSON *object, const char *prefix)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, object)
    {
        char name[120];
        snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "", item->string ? item->string : "-");
        if (cJSON_IsObject(item) || cJSON_IsArray(item))
            print_values(item, name);
        else if (cJSON_IsNumber(item))
            print_number(name, item->valuedouble);
        else
            say(stdout, "  %-28s %s\n", name,
                cJSON_IsString(item) ? item->valuestring
                : cJSON_IsTrue(item) ? "yes"
                                     : "no");
    }
}

static void print_model(const cJSON *model)
{
    if (!cJSON_IsObject(model)) {
        puts("no model loaded");
        return;
    }
    char size[32];
    format_bytes(size, sizeof size, json_number(model, "weight_bytes"));
    say(stdout, "model %s, %s, %s of weights, loaded in %.1f s\n", text_or(model, "name", "?"),
        text_or(model, "kind", "?"), size, json_number(model, "load_seconds"));
}

static void print_offered(const cJSON *models)
{
    const cJSON *model, *task;
    cJSON_ArrayForEach(model, models)
    {
        bool is_loaded = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(model, "loaded"));
        say(stdout, "%c %-24s %-16s", is_loaded ? '*' : ' ', text_or(model, "name", "?"), text_or(model, "kind", "?"));
        cJSON_ArrayForEach(task, cJSON_GetObjectItemCaseSensitive(model, "tasks"))
            say(stdout, " %s", cJSON_IsString(task) ? task->valuestring : "?");
        putchar('\n');
    }
}

/* A line for each job: id, task, state, age, client, and the beginning of its prompt. */
static void print_jobs(const cJSON *jobs)
{
    const cJSON *job;
    if (cJSON_GetArraySize(jobs) == 0)
        puts("no jobs");
    cJSON_ArrayForEach(job, jobs)
    {
        say(stdout, "%-32s  %-10s  %-9s  %6.0f s  ", text_or(job, "job", "?"), text_or(job, "task", "?"),
            text_or(job, "state", "?"), json_number(job, "age_seconds"));
        if (json_text(job, "priority")) /* of a daemon that has classes, and tokens with names */
            say(stdout, "%-11s  ", text_or(job, "priority", ""));
        if (json_text(job, "owner"))
            say(stdout, "%-12s  ", text_or(job, "owner", ""));
        say(stdout, "%-20s  %s\n", text_or(job, "client", "-"), text_or(job, "prompt", ""));
    }
}

/* A line for each job that was: when, id, task, state, and the beginning of its prompt, or why it failed. */
static void print_history(const cJSON *jobs)
{
    const cJSON *job;
    if (cJSON_GetArraySize(jobs) == 0)
        puts("no jobs");
    cJSON_ArrayForEach(job, jobs)
    {
        const time_t seconds = (time_t)json_number(job, "submitted");
        const char *told = text_or(job, "message", text_or(job, "prompt", ""));
        struct tm local;
        char when[40] = "";
        strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", localtime_r(&seconds, &local));
        say(stdout, "%s  %-32s  %-10s  %-9s  %s  %.100s\n", when, text_or(job, "job", "?"), text_or(job, "task", "?"),
            text_or(job, "state", "?"), cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(job, "result")) ? "kept" : "    ",
            told);
    }
}

/* ---- Commands ---- */

/* The answer's own fields, without those of every answer. */
static cJSON *fields_of(const struct message *answer)
{
    cJSON *fields = cJSON_Duplicate(message_envelope(answer), true);
    cJSON_DeleteItemFromObjectCaseSensitive(fields, "protocol");
    cJSON_DeleteItemFromObjectCaseSensitive(fields, "ok");
    return fields;
}

static enum exit_code print_status(struct session *session, const cJSON *stats, const struct arguments *arguments)
{
    const cJSON *hello = client_hello(session->client);
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(hello, "model");
    if (arguments->json) {
        cJSON *both = cJSON_Duplicate(stats, true), *item;
        static const char *const names[] = {"version", "generation", "backend", "build", "pid", "model", "limits"};
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            if ((item = cJSON_GetObjectItemCaseSensitive(hello, names[i])) && !cJSON_HasObjectItem(both, names[i]))
                json_add(both, names[i], cJSON_Duplicate(item, true));
        enum exit_code exit_code = print_json(both, false);
        cJSON_Delete(both);
        return exit_code;
    }
    say(stdout, "lanced %s at %s, process %.0f, %s\n", text_or(hello, "version", "?"), client_endpoint(session->client),
        json_number(hello, "pid"), text_or(hello, "backend", "unknown backend"));
    if (cJSON_HasObjectItem(stats, "advice"))
        say(stdout, "%s\n", text_or(stats, "advice", ""));
    print_model(model);
    /* What is told above already, and what only programs want (--json has it). */
    static const char *const left_out[] = {"version", "generation", "backend", "advice", "model", "requests"};
    cJSON *counters = cJSON_Duplicate(stats, true);
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++)
        cJSON_DeleteItemFromObjectCaseSensitive(counters, left_out[i]);
    print_values(counters, "");
    cJSON_Delete(counters);
    print_values(cJSON_GetObjectItemCaseSensitive(hello, "limits"), "limits");
    return EXIT_OK;
}

static enum exit_code print_answer(struct session *session, const cJSON *fields, const struct arguments *arguments)
{
    if (arguments->command == COMMAND_STATUS)
        return print_status(session, fields, arguments);
    if (arguments->json)
        return print_json(fields, false);
    switch (arguments->command) {
    case COMMAND_JOBS:
        print_jobs(cJSON_GetObjectItemCaseSensitive(fields, "jobs"));
        break;
    case COMMAND_HISTORY:
        print_history(cJSON_GetObjectItemCaseSensitive(fields, "jobs"));
        break;
    case COMMAND_METRICS:
        print_metrics(cJSON_GetObjectItemCaseSensitive(fields, "metrics"));
        break;
    case COMMAND_MODELS:
        print_offered(cJSON_GetObjectItemCaseSensitive(fields, "models"));
        break;
    case COMMAND_LOAD:
        print_model(cJSON_GetObjectItemCaseSensitive(fields, "model"));
        break;
    case COMMAND_UNLOAD:
        puts(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(fields, "unloaded")) ? "unloaded"
             : cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(fields, "pending"))
                 ? "a job runs; unloaded when it has ended"
                 : "nothing was loaded");
        break;
    case COMMAND_CANCEL:
        say(stdout, "job %s: %s\n", arguments->operand, text_or(fields, "state", "cancelled"));
        break;
    default:
        break;
    }
    return EXIT_OK;
}

/* What of the history is asked for. */
static void add_query(cJSON *fields, const struct arguments *arguments)
{
    if (arguments->since > 0)
        json_add_number(fields, "since", arguments->since);
    if (arguments->task)
        json_add_text(fields, "task", arguments->task);
    if (arguments->prompt)
        json_add_text(fields, "prompt", arguments->prompt);
    if (arguments->failed)
        json_add_bool(fields, "failed", true);
    if (arguments->json)
        json_add_bool(fields, "receipts", true);
}

/* Jobs come so many at a time: ask for those that follow until there are no more, and have them all in one list. */
static int add_other_jobs(struct session *session, cJSON *own, const struct arguments *arguments, struct error *error)
{
    const bool is_history = arguments->command == COMMAND_HISTORY;
    cJSON *job, *jobs = cJSON_GetObjectItemCaseSensitive(own, "jobs");
    bool has_more = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(own, "more"));
    cJSON_DeleteItemFromObjectCaseSensitive(own, "more");
    while (has_more) {
        const cJSON *last = cJSON_GetArrayItem(jobs, cJSON_GetArraySize(jobs) - 1);
        cJSON *fields = json_object();
        if (is_history)
            add_query(fields, arguments);
        json_add(fields, is_history ? "before" : "after",
                 cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(last, "number"), true));
        if (!json_is_complete(fields)) {
            cJSON_Delete(fields);
            return error_set(error, ERROR_NO_MEMORY, "%s: no memory", is_history ? "history" : "jobs");
        }
        struct message *answer;
        int code = session_request(session, is_history ? "history" : "jobs", fields, &answer, error);
        if (code)
            return code;
        cJSON *page = fields_of(answer), *others = cJSON_GetObjectItemCaseSensitive(page, "jobs");
        message_close(answer);
        has_more = cJSON_GetArraySize(others) > 0 && cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(page, "more"));
        while ((job = cJSON_DetachItemFromArray(others, 0)))
            json_append(jobs, job);
        cJSON_Delete(page);
    }
    return 0;
}

enum exit_code inquire(struct session *session, const struct arguments *arguments)
{
    static const char *const requests[COMMAND_COUNT] = {
        [COMMAND_STATUS] = "stats", [COMMAND_JOBS] = "jobs", [COMMAND_HISTORY] = "history",
        [COMMAND_METRICS] = "metrics", [COMMAND_MODELS] = "models", [COMMAND_LOAD] = "load",
        [COMMAND_UNLOAD] = "unload", [COMMAND_CANCEL] = "cancel", [COMMAND_SHUTDOWN] = "shutdown",
    };
    cJSON *fields = json_object();
    if (arguments->command == COMMAND_LOAD)
        json_add_text(fields, "model", arguments->operand);
    else if (arguments->command == COMMAND_CANCEL)
        json_add_text(fields, "job", arguments->operand);
    else if (arguments->command == COMMAND_HISTORY)
        add_query(fields, arguments);
    else if (arguments->command == COMMAND_SHUTDOWN)
        json_add_text(fields, "mode", arguments->cancel_jobs ? "cancel" : "finish");

    struct error error;
    struct message *answer;
    int code = session_request(session, requests[arguments->command], fields, &answer, &error);
    if (code)
        return complain(code, &error);
    cJSON *own = fields_of(answer);
    message_close(answer);
    if (arguments->command == COMMAND_JOBS || arguments->command == COMMAND_HISTORY)
        code = add_other_jobs(session, own, arguments, &error);
    enum exit_code exit_code = code ? complain(code, &error) : print_answer(session, own, arguments);
    cJSON_Delete(own);
    return exit_code;
}

/* From a PNG, the first frame of a folder, a video file, or latents. */
static int read_receipt(char **receipt, const char *path, struct error *error)
{
    char *frame = NULL;
    struct stat info;
    if (!stat(path, &info) && S_ISDIR(info.st_mode)) {
        if (asprintf(&frame, "%s/00001.png", path) < 0)
            return error_set(error, ERROR_NO_MEMORY, "no memory");
        if (access(frame, F_OK)) {
            free(frame);
            return error_set(error, ERROR_BAD_FILE, "%s has no receipt: there is no 00001.png in it", path);
        }
        path = frame;
    }
    enum output_kind kind = output_kind_of(path);
    if (kind == OUTPUT_Y4M)
        return error_set(error, ERROR_BAD_FILE,
                         "%s has no receipt: PNG, mp4, webm, latent and folders of PNGs have a place for one", path);
    int code = kind == OUTPUT_LATENT                       ? latents_read_receipt(receipt, path, error)
               : kind == OUTPUT_MP4 || kind == OUTPUT_WEBM ? video_read_receipt(receipt, path, error)
                                                           : picture_read_receipt(receipt, path, error);
    free(frame);
    return code;
}

enum exit_code show_receipt(const struct arguments *arguments)
{
    struct error error;
    char *receipt;
    if (read_receipt(&receipt, arguments->operand, &error)) {
        complain(error.code, &error);
        return EXIT_NOT_READ;
    }
    static const struct json_limits limits = {64 << 20, 1 << 21, ERROR_TOO_LARGE, ERROR_BAD_FILE};
    cJSON *object = NULL;
    enum exit_code exit_code = EXIT_OK;
    if (!arguments->json && !json_parse(&object, receipt, strlen(receipt), &limits, "the receipt", &error))
        exit_code = print_json(object, true);
    else
        say(stdout, "%s\n", receipt);
    cJSON_Delete(object);
    free(receipt);
    return exit_code;
}
