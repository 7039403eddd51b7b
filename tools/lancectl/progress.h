/* progress.h: how a job gets on, as one line that is redrawn on a terminal, or as plain
 * lines (one a second at most) anywhere else.
 */
#ifndef LANCECTL_PROGRESS_H
#define LANCECTL_PROGRESS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct progress {
    FILE *out;
    bool is_terminal, is_quiet;
    bool has_line;        /* a redrawn line stands on the terminal, without its end */
    double last_seconds;  /* when the last plain line was printed */
    const char *last_stage; /* its stage, one of a few static strings; NULL before the first */
};

/* `out` is stderr, as a rule: results go to stdout. */
void progress_start(struct progress *progress, FILE *out, bool is_quiet);

/* Show a job's event (queued, started, progress); others are ignored. */
void progress_show(struct progress *progress, const cJSON *event);

/* Take the terminal's line away, so that something else can stand there. */
void progress_clear(struct progress *progress);

/* Leave the terminal's line as it is and go to the next, before anything else is printed. */
void progress_end(struct progress *progress);

/* The line for a progress event in at most `columns` columns (ASCII only), with a bar where there is room for it.
 * `line` holds columns + 1. */
void progress_line(char *line, size_t columns, const cJSON *event, bool with_bar);

#endif
