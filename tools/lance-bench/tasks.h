/* tasks.h: lance-bench --tasks: whole jobs through the engine, timed by stage. */
#ifndef LANCE_BENCH_TASKS_H
#define LANCE_BENCH_TASKS_H

#include <stdbool.h>

#include "kernels/kernels.h"

struct tasks_options {
    const char *model, *vae, *vit; /* as lanced's --model DIR, --vae, --vit; the last two may be NULL */
    const char *only;              /* "t2i,t2v,x2t_image": these alone; NULL: all three */
    const char *prompt, *question;
    int image[2];                  /* width, height */
    int video[3];                  /* width, height, frames */
    int picture[2];                /* that is asked about: width, height */
    int steps, tokens;
    int runs;                      /* of every task: the last counts, and all must have the same result */
    bool byte_head;                /* as lanced's --head int8 */
    bool json;
};

/* The sizes that the project's goals are stated in. */
struct tasks_options tasks_defaults(void);

/* Run and print. Returns the program's exit status: 0; 1 when something failed, runs differed,
 * or a result is not finite. */
int tasks_run(struct kernels *kernels, const struct tasks_options *options);

#endif
