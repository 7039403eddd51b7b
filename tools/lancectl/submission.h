/* submission.h: one job from its request to its end: submitted, followed with progress, preview and text. */
#ifndef LANCECTL_SUBMISSION_H
#define LANCECTL_SUBMISSION_H

#include "tools/lancectl/arguments.h"
#include "tools/lancectl/exit_codes.h"
#include "tools/lancectl/latents.h"
#include "tools/lancectl/session.h"
#include "tools/media/clip.h"

/* What differs between the jobs of one command line. */
struct job {
    char id[JOB_ID_MAX_BYTES + 1];
    const char *task;            /* its name in the protocol */
    const char *prompt;          /* NULL: the task takes none */
    const char *system;          /* system prompt where the command line gave none; NULL: the official one */
    const struct clip *source;   /* NULL: none */
    const struct latents_file *latents; /* NULL: none */
    bool keeps_latents;          /* they are the result, not pictures */
    bool answers_stdout;         /* its answer is printed, and is all that it is for */
    bool shows_text;             /* print the answer as it comes */
};

/* The "params" of the submit request: the prompt and what was given on the command line, nothing
 * else. NULL: out of memory. */
cJSON *job_params(const struct job *job, const struct arguments *arguments);

/* The most bytes that a source may take, so that the request is not larger than the daemon's limit. */
uint64_t job_source_limit(const struct session *session);

/* Submit the job and follow it to its end; Ctrl-C cancels it on the daemon, and so does the end of who reads its
 * answer. EXIT_OK: the result can be fetched. Prints its own errors. */
enum exit_code job_run(struct session *session, const struct job *job, const struct arguments *arguments);

#endif
