/* doctor.c: see doctor.h. What a daemon knows it is asked; what this machine has says lanced --check. With --model a
 * daemon of lancectl's own opens the folder, so that the one that serves is left as it is. */
#include "tools/lancectl/doctor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/json.h"
#include "protocol/endpoint.h"
#include "protocol/nng_start.h"
#include "protocol/version.h"
#include "tools/lancectl/findings.h"
#include "tools/lancectl/interrupt.h"
#include "tools/lancectl/private_daemon.h"
#include "tools/lancectl/program.h"
#include "tools/lancectl/session.h"
#include "tools/lancectl/short_run.h"
#include "tools/media/video_file.h"

struct doctor {
    const struct arguments *arguments;
    struct findings findings;
    cJSON *details; /* for --json */
};

static const cJSON *part(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static bool is_true(const cJSON *object, const char *name)
{
    return cJSON_IsTrue(part(object, name));
}

static const char *text_or(const cJSON *object, const char *name, const char *otherwise)
{
    const char *text = json_text(object, name);
    return text ? text : otherwise;
}

/* --- What is installed ------------------------------------------------------------------------------------ */

/* The field `machine` of an answer or of lanced --check. */
static void tell_machine(struct doctor *doctor, const cJSON *answer)
{
    struct findings *findings = &doctor->findings;
    const cJSON *machine = part(answer, "machine");
    const char *why = json_text(machine, "why_not_cuda");
    findings_add(findings, FINDING_OK, EXIT_OK, "backend", "%s", text_or(answer, "backend", "unknown"));
    if (json_text(answer, "advice"))
        findings_add(findings, FINDING_NOTE, EXIT_OK, "backend", "%s", json_text(answer, "advice"));
    if (is_true(machine, "uses_cuda"))
        findings_add(findings, FINDING_OK, EXIT_OK, "cuda", "the plugin, the driver and a card are there and used");
    else if (why && is_true(machine, "cuda_plugin"))
        findings_add(findings, FINDING_PROBLEM, EXIT_FAILED, "cuda", "the plugin is there but not used: %s", why);
    else
        findings_add(findings, FINDING_NOTE, EXIT_OK, "cuda", "%s", why ? why : "not asked for (--backend cpu)");
    findings_add(findings, FINDING_OK, EXIT_OK, "memory", "%.1f GB free of %.1f GB",
                 json_number(machine, "available_bytes") / 1e9, json_number(machine, "memory_bytes") / 1e9);
    json_add(doctor->details, "machine", cJSON_Duplicate(machine, true));
}

/* lanced beside this program or in PATH: whether it starts, its version, what it finds here. */
static void look_at_lanced(struct doctor *doctor)
{
    char path[4096], *out, *errors;
    program_find_lanced(path, sizeof path);
    const int code = program_run((const char *const[]){path, "--check", NULL}, &out, &errors);
    static const struct json_limits limits = {1 << 20, 10000, ERROR_TOO_LARGE, ERROR_BAD_FILE};
    struct error error;
    cJSON *said = NULL;
    if (code != 0 || !out || json_parse(&said, out, strlen(out), &limits, "what lanced --check says", &error)) {
        findings_add(&doctor->findings, FINDING_PROBLEM, EXIT_FAILED, "lanced", "%s does not start here: %s", path,
                     errors ? errors : "it says nothing");
    } else {
        const char *version = text_or(said, "version", "?");
        const bool is_same = !strcmp(version, LANCED_VERSION);
        findings_add(&doctor->findings, is_same ? FINDING_OK : FINDING_NOTE, EXIT_OK, "lanced", "%s, version %s%s",
                     path, version, is_same ? "" : ", while lancectl has " LANCED_VERSION);
        tell_machine(doctor, said);
    }
    cJSON_Delete(said);
    free(out);
    free(errors);
}

static void look_at_media(struct doctor *doctor)
{
    static const struct { enum video_format format; const char *name; } kinds[] = {{VIDEO_MP4, "mp4"},
                                                                                   {VIDEO_WEBM, "webm"}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const char *encoder;
        const bool can = video_can_write(kinds[i].format, &encoder);
        findings_add(&doctor->findings, can ? FINDING_OK : FINDING_PROBLEM, EXIT_FAILED, "video",
                     can ? "%s is written with libav's %s" : "no %s can be written: this libav has no encoder %s",
                     kinds[i].name, encoder);
    }
}

static void look_at_python(struct doctor *doctor)
{
    char *out, *errors;
    static const char *const command[] = {"python3", "-c", "import lanced_client; print(lanced_client.__version__)",
                                          NULL};
    const int status = program_run(command, &out, &errors);
    if (status == 0 && out)
        findings_add(&doctor->findings, FINDING_OK, EXIT_OK, "python", "python3 has lanced_client %s", out);
    else
        findings_add(&doctor->findings, FINDING_NOTE, EXIT_OK, "python",
                     "python3 has no lanced_client, which Python programs need; lancectl does not, and the nodes bring "
                     "their own");
    free(out);
    free(errors);
}

/* --- What the socket says --------------------------------------------------------------------------------- */

static void tell_no_daemon(struct doctor *doctor, int code, const struct error *error)
{
    struct endpoint endpoint;
    struct error unused;
    struct stat info;
    const bool has_socket = !endpoint_resolve(&endpoint, doctor->arguments->endpoint, &unused) &&
                            *endpoint.path && stat(endpoint.path, &info) == 0;
    const bool is_wanted = !doctor->arguments->model_dir;
    if (code != ERROR_IO)
        findings_add(&doctor->findings, FINDING_PROBLEM, EXIT_REFUSED, "socket", "%s", error->text);
    else
        findings_add(&doctor->findings, is_wanted ? FINDING_PROBLEM : FINDING_NOTE, EXIT_NO_DAEMON, "socket", "%s%s",
                     error->text,
                     has_socket ? "; the socket there is left over from one that was killed: the next takes its place"
                                : "");
}

static void tell_daemon(struct doctor *doctor, struct session *session, const cJSON *stats)
{
    struct findings *findings = &doctor->findings;
    const cJSON *hello = client_hello(session->client), *model = part(hello, "model"), *jobs = part(stats, "jobs");
    const char *version = text_or(hello, "version", "?");
    findings_add(findings, FINDING_OK, EXIT_OK, "socket",
                 "lanced answers at %s and lets this client in, process %.0f, %s", client_endpoint(session->client),
                 json_number(hello, "pid"), text_or(hello, "backend", "?"));
    findings_add(findings, strcmp(version, LANCED_VERSION) ? FINDING_NOTE : FINDING_OK, EXIT_OK, "version",
                 "lanced %s, lancectl " LANCED_VERSION, version);
    if (is_true(hello, "shutting_down"))
        findings_add(findings, FINDING_NOTE, EXIT_OK, "socket", "it is shutting down and takes no more jobs");
    findings_add(findings, FINDING_OK, EXIT_OK, "resident", cJSON_IsObject(model) ? "model %s" : "%s",
                 cJSON_IsObject(model) ? text_or(model, "name", "?") : "no model is in memory");
    findings_add(findings, FINDING_OK, EXIT_OK, "queue", "%.0f running, %.0f waiting, of at most %.0f",
                 json_number(jobs, "running"), json_number(jobs, "queued"),
                 json_number(part(hello, "limits"), "queue"));
}

/* --- What models can do ----------------------------------------------------------------------------------- */

/* One task of a model in memory: whether it can be done, and within what is free. */
static void tell_task(struct doctor *doctor, const cJSON *estimate, const cJSON *machine)
{
    const char *problem = json_text(estimate, "problem"), *code = text_or(estimate, "code", "");
    const bool uses_card = is_true(machine, "uses_cuda");
    const double need = json_number(estimate, uses_card ? "host_bytes" : "total_bytes");
    const double free_bytes = json_number(machine, "available_bytes");
    if (problem && !strcmp(code, error_name(ERROR_BUSY)))
        findings_add(&doctor->findings, FINDING_NOTE, EXIT_OK, estimate->string, "%s", problem);
    else if (problem)
        findings_add(&doctor->findings, FINDING_PROBLEM,
                     strcmp(code, error_name(ERROR_UNSUPPORTED)) ? EXIT_FAILED : EXIT_NOT_READ, estimate->string, "%s",
                     problem);
    else if (free_bytes > 0 && need > free_bytes)
        findings_add(&doctor->findings, FINDING_PROBLEM, EXIT_FAILED, estimate->string,
                     "needs %.0f MB beside the weights at its default size; %.0f MB are free now", need / 1e6,
                     free_bytes / 1e6);
    else
        findings_add(&doctor->findings, FINDING_OK, EXIT_OK, estimate->string,
                     "possible; takes %.0f MB beside the weights at its default size",
                     json_number(estimate, uses_card ? "device_bytes" : "total_bytes") / 1e6);
}

/* What lies in its folder, and whether its weights would fit. */
static bool tell_folder(struct doctor *doctor, const cJSON *model, const cJSON *machine)
{
    const char *name = text_or(model, "name", "?"), *problem = json_text(model, "problem");
    const double bytes = json_number(model, "file_bytes"), free_bytes = json_number(machine, "available_bytes");
    const bool is_loaded = is_true(model, "loaded");
    if (problem)
        findings_add(&doctor->findings, FINDING_PROBLEM, EXIT_NOT_READ, "model", "%s: %s", name, problem);
    else if (!is_true(model, "fits"))
        findings_add(&doctor->findings, FINDING_PROBLEM, EXIT_FAILED, "model",
                     "%s: %s, %.1f GB of weights: more than this machine can give them", name,
                     text_or(model, "form", "?"), bytes / 1e9);
    else if (!is_loaded && !is_true(machine, "uses_cuda") && free_bytes > 0 && bytes > free_bytes)
        findings_add(&doctor->findings, FINDING_NOTE, EXIT_OK, "model",
                     "%s: %s, %.1f GB of weights, of which %.1f GB are free now", name, text_or(model, "form", "?"),
                     bytes / 1e9, free_bytes / 1e9);
    else
        findings_add(&doctor->findings, FINDING_OK, EXIT_OK, "model", "%s: %s, for %s, %.2f GB of weights%s", name,
                     text_or(model, "form", "?"), text_or(model, "made_for", "?"), bytes / 1e9,
                     is_loaded ? ", in memory" : "");
    return !problem && is_true(model, "fits");
}

static int ask(struct session *session, const char *request, cJSON *fields, cJSON **answer, struct error *error)
{
    struct message *message;
    int code = session_request(session, request, fields, &message, error);
    if (code)
        return code;
    *answer = cJSON_Duplicate(message_envelope(message), true);
    message_close(message);
    return *answer ? 0 : error_set(error, ERROR_NO_MEMORY, "%s: no memory", request);
}

static int ask_models(struct session *session, cJSON **answer, struct error *error)
{
    cJSON *fields = json_object();
    json_add_bool(fields, "estimates", true);
    return ask(session, "models", fields, answer, error);
}

/* Each model that a daemon offers, and the tasks of those in memory. Returns whether the folders are whole. */
static bool tell_models(struct doctor *doctor, const cJSON *answer)
{
    const cJSON *model, *estimate, *machine = part(answer, "machine");
    bool whole = true;
    cJSON_ArrayForEach(model, part(answer, "models"))
    {
        whole = tell_folder(doctor, model, machine) && whole;
        cJSON_ArrayForEach(estimate, part(model, "estimates"))
            tell_task(doctor, estimate, machine);
    }
    return whole;
}

static void keep_details(struct doctor *doctor, const char *name, const cJSON *value)
{
    if (doctor->findings.json)
        json_add(doctor->details, name, cJSON_Duplicate(value, true));
}

/* --- How fast ---------------------------------------------------------------------------------------------- */

static void tell_speed(struct doctor *doctor, struct session *session)
{
    struct error error;
    struct short_run run;
    int code = short_run(&run, session->client, &error);
    if (code) {
        findings_add(&doctor->findings, FINDING_PROBLEM, EXIT_FAILED, "speed", "the short run failed: %s", error.text);
        return;
    }
    findings_add(&doctor->findings, FINDING_OK, EXIT_OK, "speed", "%s: %.1f s in all, %.3f s for each %s", run.what,
                 run.total_seconds, run.step_seconds, run.step);
    cJSON *speed = json_add_object(doctor->details, "speed");
    json_add_text(speed, "task", run.task);
    json_add_number(speed, "total_seconds", run.total_seconds);
    json_add_number(speed, "step_seconds", run.step_seconds);
}

/* --- The parts together ----------------------------------------------------------------------------------- */

/* The daemon that answers at the endpoint, if one does. */
static void look_at_daemon(struct doctor *doctor)
{
    struct arguments asking = *doctor->arguments;
    struct session session;
    struct error error;
    cJSON *stats = NULL, *models = NULL;
    asking.model_dir = NULL;
    asking.quiet = true;
    int code = session_open(&session, &asking, &error);
    if (!code)
        code = ask(&session, "stats", json_object(), &stats, &error);
    if (!code)
        code = ask_models(&session, &models, &error);
    if (code) {
        tell_no_daemon(doctor, code, &error);
    } else {
        const cJSON *jobs = part(stats, "jobs");
        const double busy = json_number(jobs, "running") + json_number(jobs, "queued");
        tell_daemon(doctor, &session, stats);
        keep_details(doctor, "models", part(models, "models"));
        tell_models(doctor, models);
        if (doctor->arguments->model_dir)
            ; /* that one is measured */
        else if (busy > 0)
            findings_add(&doctor->findings, FINDING_NOTE, EXIT_OK, "speed", "not measured: it has jobs to do");
        else if (!cJSON_IsObject(part(client_hello(session.client), "model")))
            findings_add(&doctor->findings, FINDING_NOTE, EXIT_OK, "speed",
                         "not measured: no model is in memory; lancectl load NAME");
        else
            tell_speed(doctor, &session);
    }
    cJSON_Delete(stats);
    cJSON_Delete(models);
    session_close(&session);
}

/* The folder of --model, opened by a daemon of its own: first what lies there, then what can be done with it. */
static void look_at_folder(struct doctor *doctor)
{
    struct arguments asking = *doctor->arguments;
    struct session session;
    struct error error;
    cJSON *models = NULL, *loaded = NULL;
    asking.quiet = true;
    int code = session_open_private(&session, &asking, &error);
    if (!code)
        code = ask_models(&session, &models, &error);
    const bool whole = !code && tell_models(doctor, models);
    if (whole)
        code = ask(&session, "load", json_object(), &loaded, &error);
    if (code)
        findings_add(&doctor->findings, FINDING_PROBLEM, code == ERROR_BAD_FILE ? EXIT_NOT_READ : EXIT_FAILED, "model",
                     "%s: %s", doctor->arguments->model_dir, error.text);
    cJSON_Delete(models);
    models = NULL;
    if (loaded && !ask_models(&session, &models, &error)) {
        const cJSON *estimate, *model = cJSON_GetArrayItem(part(models, "models"), 0);
        cJSON_ArrayForEach(estimate, part(model, "estimates"))
            tell_task(doctor, estimate, part(models, "machine"));
        keep_details(doctor, "folder", model);
        tell_speed(doctor, &session);
    }
    cJSON_Delete(models);
    cJSON_Delete(loaded);
    session_close(&session);
}

enum exit_code doctor_command(const struct arguments *arguments)
{
    struct doctor doctor = {.arguments = arguments, .details = json_object()};
    struct error error;
    findings_begin(&doctor.findings, arguments->json);
    interrupt_install();
    look_at_lanced(&doctor);
    look_at_media(&doctor);
    look_at_python(&doctor);
    if (nng_start("lancectl", &error)) {
        findings_add(&doctor.findings, FINDING_PROBLEM, EXIT_FAILED, "socket", "%s", error.text);
        return findings_end(&doctor.findings, doctor.details);
    }
    look_at_daemon(&doctor);
    if (arguments->model_dir && !interrupt_signal())
        look_at_folder(&doctor);
    const enum exit_code exit_code = findings_end(&doctor.findings, doctor.details);
    return interrupt_signal() ? (enum exit_code)(EXIT_INTERRUPTED + interrupt_signal()) : exit_code;
}
