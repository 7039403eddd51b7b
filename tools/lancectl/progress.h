/* progress.h: how a job gets on, as one line that is redrawn on a terminal, or as plain
 * lines (one a second at most) anywhere else.
 */
#ifndef LANCECTL_PROGRESS_H
#define LANCECTL_PROGRESS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { PROGRESS_STAGE_BYTES = 16 };

struct progress {
    FILE *out;
    bool is_terminal, is_quiet;
    bool has_line;        /* a redrawn line stands on the terminal, without its end */
    double began_seconds; /* when progress_start was called */
    double last_seconds;  /* when the last plain line was printed */
    char last_stage[PROGRESS_STAGE_BYTES]; /* its stage; "" before the first */
};

/* `out` is stderr, as a rule: results go to stdout. */
void progress_start(struct progress *progress, FILE *out, bool is_quiet);

/* Show a job's event (queued, started, progress); others are ignored. */
void progress_show(struct progress *progress, const cJSON *event);

/* Show how many of a payload's bytes have moved; `what` is "sending" or "receiving". Nothing is shown of what takes
 * less than a second from progress_start. */
void progress_show_transfer(struct progress *progress, const char *what, uint64_t moved_bytes, uint64_t total_bytes);

/* Take the terminal's line away, so that something else can stand there. */
void progress_clear(struct progress *progress);

/* Leave the terminal's line as it is and go to the next, before anything else is printed. */
void progress_end(struct progress *progress);

/* The line for a progress event in at most `columns` columns (ASCII only), with a bar where there is room for it.
 * `line` holds columns + 1. */
void progress_line(char *line, size_t columns, const cJSON *event, bool with_bar);

#endif
