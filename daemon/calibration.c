/* calibration.c: see calibration.h. */
#include "daemon/calibration.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/engine/tap.h"
#include "daemon/log.h"

enum { NOTE_BYTES = 128, THREADS = 1 }; /* a sum of what is in cache: others would have to be woken for it */

struct calibration {
    const char *path;
    double seconds, written_at;
    uint64_t written_tokens;
    char note[NOTE_BYTES]; /* the model's hash; "": not known yet */
    bool is_over;          /* something went wrong */
    struct statistics *statistics;
    struct gather *gather;
};

int calibration_open(struct calibration **out, const char *path, double seconds, struct error *error)
{
    struct calibration *c = *out = calloc(1, sizeof *c);
    if (!c)
        return error_set(error, ERROR_NO_MEMORY, "calibration: out of memory");
    c->path = path;
    c->seconds = seconds;
    c->written_at = clock_seconds();
    int code = access(path, F_OK) == 0 ? statistics_open(&c->statistics, path, error)
                                       : statistics_new(&c->statistics, error);
    const char *note = code == 0 ? statistics_note(c->statistics) : NULL;
    if (code == 0 && note)
        snprintf(c->note, sizeof c->note, "%s", note);
    if (code == 0 && !note && statistics_layers(c->statistics) > 0)
        code = error_set(error, ERROR_BAD_FILE,
                         "%s: is of lance-quant, not of --calibrate; name another file, and merge the two", path);
    if (code == 0)
        code = gather_open(&c->gather, c->statistics, NULL, THREADS, error);
    if (code == 0)
        code = statistics_write(c->statistics, path, c->note, error);
    if (code != 0) {
        c->is_over = true;
        calibration_close(c);
        *out = NULL;
    }
    return code;
}

static void give_up(struct calibration *c, const struct error *error)
{
    log_error(NULL, "calibration ends, what was counted until now is in %s: %s", c->path, error->text);
    c->is_over = true;
}

static void write_now(struct calibration *c)
{
    struct error error;
    const uint64_t tokens = gather_tokens(c->gather);
    c->written_at = clock_seconds();
    if (gather_check(c->gather, &error) != 0) {
        give_up(c, &error);
        return;
    }
    if (tokens == c->written_tokens)
        return;
    if (statistics_write(c->statistics, c->path, c->note, &error) == 0)
        c->written_tokens = tokens;
    else
        log_error(NULL, "calibration: %s", error.text);
}

void calibration_close(struct calibration *c)
{
    if (!c)
        return;
    if (!c->is_over)
        write_now(c);
    gather_close(c->gather);
    statistics_close(c->statistics);
    free(c);
}

int calibration_watch(struct calibration *c, struct lance_model *model, struct error *error)
{
    struct lance_model_info info;
    if (!c || c->is_over)
        return 0;
    lance_model_info(model, &info);
    if (statistics_layers(c->statistics) > 0 && strcmp(c->note, info.hash) != 0)
        return error_set(error, ERROR_BAD_FILE, "%s: was counted with another model than %s; name another file",
                         c->path, info.name);
    snprintf(c->note, sizeof c->note, "%s", info.hash);
    return lance_tap_open(model, gather_watch, c->gather, error);
}

void calibration_note_task(struct calibration *c, enum lance_task task)
{
    struct error error;
    if (c && !c->is_over && statistics_add_task(c->statistics, lance_task_name(task), &error) != 0)
        give_up(c, &error);
}

double calibration_due(const struct calibration *c)
{
    return !c || c->is_over || gather_tokens(c->gather) == c->written_tokens ? 0 : c->written_at + c->seconds;
}

void calibration_tick(struct calibration *c)
{
    if (c && !c->is_over && clock_seconds() - c->written_at >= c->seconds)
        write_now(c);
}
