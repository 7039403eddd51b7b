/* make_command.h: the commands that make something: t2i, t2v, i2v, edit, video-edit, ask, encode and decode. */
#ifndef LANCECTL_MAKE_COMMAND_H
#define LANCECTL_MAKE_COMMAND_H

#include "tools/lancectl/arguments.h"
#include "tools/lancectl/exit_codes.h"
#include "tools/lancectl/result.h"
#include "tools/lancectl/session.h"
#include "tools/lancectl/source.h"

/* What a task takes and makes. */
struct task_kind {
    const char *name; /* in the protocol */
    enum source_kind source;
    bool makes_video, answers;
};

/* Of a task's protocol name; NULL: there is none of that name. */
const struct task_kind *task_kind_of(const char *name);

/* One thing to make. */
struct task_wish {
    const struct task_kind *kind; /* NULL: a question about whatever the source turns out to be */
    const char *source;           /* path, or NULL */
    const char *latents;          /* path, or NULL */
    const char *prompt;           /* NULL: none, which the task takes or not */
    const char *system;           /* where the command line gives none; or NULL */
    const char *output;           /* or NULL; see result.h */
    const char *job;              /* the job's id; NULL: a random one */
    char **answer;                /* see result.h */
};

/* Read the source, run the job, save its result. Ctrl-C cancels the job on the daemon. Prints its own errors. */
enum exit_code task_make(struct session *session, const struct task_wish *wish, const struct arguments *arguments);

/* The command as it was given. */
enum exit_code task_command(struct session *session, const struct arguments *arguments);

#endif
