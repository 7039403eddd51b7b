/* top.c: see top.h. Each look is a "stats" and a "jobs"; rates are what has changed since the look before. */
#include "tools/lancectl/top.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "tools/lancectl/complain.h"
#include "tools/lancectl/interrupt.h"
#include "tools/lancectl/say.h"

enum { LOOK_MS = 1000, NAP_MS = 50, HEAD_ROWS = 7, PROMPT_COLUMNS = 40 };

/* What the terminal is told: another screen without a cursor, and back; a frame's beginning, a line's end, the end. */
static const char enter[] = "\033[?1049h\033[?25l", leave[] = "\033[?25h\033[?1049l";
static const char home[] = "\033[H", rest_of_line[] = "\033[K", rest_of_screen[] = "\033[J";

struct look {
    cJSON *stats, *jobs;
    double at, steps, busy;
};

static void look_clear(struct look *look)
{
    cJSON_Delete(look->stats);
    cJSON_Delete(look->jobs);
    *look = (struct look){0};
}

static int ask(struct session *session, const char *request, cJSON **fields, struct error *error)
{
    struct message *answer;
    int code = session_request(session, request, json_object(), &answer, error);
    if (code)
        return code;
    *fields = cJSON_Duplicate(message_envelope(answer), true);
    message_close(answer);
    return *fields ? 0 : error_set(error, ERROR_NO_MEMORY, "%s: no memory", request);
}

static int take_look(struct look *look, struct session *session, struct error *error)
{
    *look = (struct look){.at = clock_seconds()};
    int code = ask(session, "stats", &look->stats, error);
    if (!code)
        code = ask(session, "jobs", &look->jobs, error);
    look->steps = json_number(look->stats, "steps");
    look->busy = json_number(look->stats, "busy_seconds");
    return code;
}

static const cJSON *part(const struct look *look, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(look->stats, name);
}

static const char *text_of(const cJSON *object, const char *name)
{
    const char *text = json_text(object, name);
    return text ? text : "-";
}

/* Steps a second and the share of time spent in them since the look before; of the first one, the last step's. */
static double step_rate(const struct look *now, const struct look *before)
{
    const double last = json_number(now->stats, "last_step_seconds");
    if (before->stats)
        return (now->steps - before->steps) / (now->at - before->at);
    return json_number(part(now, "jobs"), "running") > 0 && last > 0 ? 1 / last : 0;
}

static double busy_share(const struct look *now, const struct look *before)
{
    const double uptime = json_number(now->stats, "uptime_seconds");
    return before->stats ? (now->busy - before->busy) / (now->at - before->at)
           : uptime > 0  ? now->busy / uptime
                         : 0;
}

static double gigabytes(const struct look *look, const char *name)
{
    return json_number(part(look, "memory"), name) / 1e9;
}

static void print_head(const struct look *now, const struct look *before, const char *end)
{
    const cJSON *jobs = part(now, "jobs"), *model = part(now, "model");
    say(stdout, "lanced %s, up %.0f s, on %s", text_of(now->stats, "version"),
        json_number(now->stats, "uptime_seconds"), text_of(now->stats, "backend"));
    fputs(end, stdout);
    if (cJSON_IsObject(model))
        say(stdout, "model   %s, %s, %.1f GB of weights", text_of(model, "name"), text_of(model, "kind"),
            json_number(model, "weight_bytes") / 1e9);
    else
        say(stdout, "model   none in memory");
    fputs(end, stdout);
    say(stdout, "jobs    %.0f running, %.0f queued, %.0f done, %.0f failed, %.0f cancelled, %.0f refused",
        json_number(jobs, "running"), json_number(jobs, "queued"), json_number(jobs, "done"),
        json_number(jobs, "failed"), json_number(jobs, "cancelled"), json_number(jobs, "refused"));
    fputs(end, stdout);
    say(stdout, "steps   %.1f a second, %.0f %% of the time busy, the last one took %.3f s", step_rate(now, before),
        100 * busy_share(now, before), json_number(now->stats, "last_step_seconds"));
    fputs(end, stdout);
    say(stdout, "memory  %.2f GB resident; on the device: weights %.2f, prefixes %.2f, job %.2f of %.2f GB",
        gigabytes(now, "resident_bytes"), gigabytes(now, "weight_bytes"), gigabytes(now, "prefix_bytes"),
        gigabytes(now, "job_bytes"), gigabytes(now, "job_limit_bytes"));
    fputs(end, stdout);
    fputs(end, stdout);
}

/* Those that have not ended, as many as there are rows for. */
static void print_jobs(const struct look *now, int rows, const char *end)
{
    const cJSON *job;
    say(stdout, "%-32s  %-10s  %-8s  %8s  %-20s  %s", "JOB", "TASK", "STATE", "AGE", "CLIENT", "PROMPT");
    fputs(end, stdout);
    cJSON_ArrayForEach(job, cJSON_GetObjectItemCaseSensitive(now->jobs, "jobs"))
    {
        const char *state = text_of(job, "state");
        if ((*state != 'q' && *state != 'r') || rows-- <= 0) /* queued, running */
            continue;
        say(stdout, "%-32s  %-10s  %-8s  %6.0f s  %-20.20s  %.*s", text_of(job, "job"), text_of(job, "task"), state,
            json_number(job, "age_seconds"), text_of(job, "client"), PROMPT_COLUMNS, text_of(job, "prompt"));
        fputs(end, stdout);
    }
}

static int rows_of_terminal(void)
{
    struct winsize size;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > HEAD_ROWS ? size.ws_row - HEAD_ROWS - 1 : 16;
}

static enum exit_code print_once(const struct look *now, bool is_json)
{
    static const struct look none;
    if (!is_json) {
        print_head(now, &none, "\n");
        print_jobs(now, 1 << 20, "\n");
        return EXIT_OK;
    }
    cJSON *both = json_object();
    json_add(both, "stats", cJSON_Duplicate(now->stats, true));
    json_add(both, "jobs", cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(now->jobs, "jobs"), true));
    json_add_number(both, "steps_per_second", step_rate(now, &none));
    json_add_number(both, "busy", busy_share(now, &none));
    char *text = json_print(both);
    if (text)
        say(stdout, "%s\n", text);
    cJSON_free(text);
    cJSON_Delete(both);
    return text ? EXIT_OK : EXIT_FAILED;
}

/* Until Ctrl-C, or until the daemon does not answer. */
static int show_live(struct session *session, struct look *now, struct error *error)
{
    struct look before = {0};
    int code = 0;
    fputs(enter, stdout);
    while (!code && !interrupt_signal()) {
        fputs(home, stdout);
        print_head(now, &before, "\033[K\n");
        print_jobs(now, rows_of_terminal(), "\033[K\n");
        fputs(rest_of_line, stdout);
        fputs(rest_of_screen, stdout);
        fflush(stdout);
        for (int slept = 0; slept < LOOK_MS && !interrupt_signal(); slept += NAP_MS)
            usleep(NAP_MS * 1000);
        look_clear(&before);
        before = *now;
        code = take_look(now, session, error);
    }
    fputs(leave, stdout);
    fflush(stdout);
    look_clear(&before);
    return interrupt_signal() ? 0 : code;
}

enum exit_code top_command(struct session *session, const struct arguments *arguments)
{
    struct error error;
    struct look now;
    enum exit_code exit_code = EXIT_OK;
    int code = take_look(&now, session, &error);
    if (!code && (arguments->once || arguments->json || !isatty(STDOUT_FILENO)))
        exit_code = print_once(&now, arguments->json);
    else if (!code)
        code = show_live(session, &now, &error);
    look_clear(&now);
    return code ? complain(code, &error) : exit_code;
}
