/* short_run.h: one small job, to see how fast a daemon is with the model that it has in memory. */
#ifndef LANCECTL_SHORT_RUN_H
#define LANCECTL_SHORT_RUN_H

#include "protocol/client.h"

struct short_run {
    const char *task;
    const char *what; /* in words: "a picture of 256x256 in 4 steps" */
    const char *step; /* what step_seconds are of: "step", "token" */
    double total_seconds, step_seconds;
};

/* A picture; or, of a model that makes none, an answer about one. Its result is not kept, and Ctrl-C cancels it.
 * Errors: those of client_follow. */
int short_run(struct short_run *run, struct client *client, struct error *error);

#endif
