/* main.c of poisoned-lanced: lanced, but for jobs that end it. Whoever steps a job with the prompt "poison" in it for
 * the third time since it was opened has the process abort, from within the engine's step, as a fault there would.
 *
 * Only this program of the tests has it: the linker puts these functions between the daemon and the engine (--wrap, in
 * the Makefile). The lanced that is installed knows of no such prompt.
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/daemon.h"
#include "daemon/engine/lance.h"

enum { DEADLY_STEP = 3 };

/* The poisoned job that is open; the worker's thread alone opens and steps jobs. */
static struct lance_job *poisoned;
static int steps;

int __real_lance_job_start(struct lance_job **out, struct lance_model *model, const struct lance_request *request,
                           struct error *error);
int __real_lance_job_resume(struct lance_job **out, struct lance_model *model, const struct lance_request *request,
                            const void *state, size_t bytes, struct error *error);
int __real_lance_job_step(struct lance_job *job, struct lance_progress *progress, struct error *error);
int __wrap_lance_job_start(struct lance_job **out, struct lance_model *model, const struct lance_request *request,
                           struct error *error);
int __wrap_lance_job_resume(struct lance_job **out, struct lance_model *model, const struct lance_request *request,
                            const void *state, size_t bytes, struct error *error);
int __wrap_lance_job_step(struct lance_job *job, struct lance_progress *progress, struct error *error);

static void watch(struct lance_job *job, const struct lance_request *request)
{
    if (request->prompt && strstr(request->prompt, "poison")) {
        poisoned = job;
        steps = 0;
    } else if (job == poisoned) { /* that one was closed, and another has its place */
        poisoned = NULL;
    }
}

int __wrap_lance_job_start(struct lance_job **out, struct lance_model *model, const struct lance_request *request,
                           struct error *error)
{
    const int code = __real_lance_job_start(out, model, request, error);
    if (!code)
        watch(*out, request);
    return code;
}

int __wrap_lance_job_resume(struct lance_job **out, struct lance_model *model, const struct lance_request *request,
                            const void *state, size_t bytes, struct error *error)
{
    const int code = __real_lance_job_resume(out, model, request, state, bytes, error);
    if (!code)
        watch(*out, request);
    return code;
}

int __wrap_lance_job_step(struct lance_job *job, struct lance_progress *progress, struct error *error)
{
    if (job == poisoned && ++steps == DEADLY_STEP)
        abort();
    return __real_lance_job_step(job, progress, error);
}

int main(int argc, char **argv)
{
    return daemon_run(argc, argv);
}
