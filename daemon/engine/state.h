/* state.h: where a job is and what it needs to go on, between lance_job_save and lance_job_resume: one safetensors
 * file.
 *
 * What later stages can find or make again is not in it: prepared frames and noise come from the request, tokens of the
 * ViT, keys and values of the prompt from the model. Of a generator nothing has to be kept: noise is drawn while
 * preparing, and each token's draw depends on the seed and the token's number alone.
 */
#ifndef LANCE_STATE_H
#define LANCE_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "daemon/engine/stage.h"

/* Which job, on what: a state is taken up only where all of it is the same. */
struct state_identity {
    const char *build, *backend;
    char model[80];   /* its hash, and how its position tables are held */
    char request[65]; /* hash of parameters and texts */
    char inputs[65];  /* and of what preparing made of the payloads; "": not known yet */
};

/* How large the parts of a state are for this job; 0: it has no such part. */
struct state_sizes {
    size_t latents;        /* floats of x: all batch items */
    size_t encoded;        /* latents of the source */
    int tokens;            /* at most, each below */
    int token_ids;
    size_t token_values;   /* floats of a token's keys and values */
    int items;             /* of decoded pixels, each of */
    size_t item_bytes;
    int item_steps;        /* and made in so many steps */
    int steps[STAGE_COUNT]; /* of each stage; 0: the job has none */
};

struct job_state {
    enum lance_stage stage;
    int step;              /* steps of the stage that are done */
    float *x;              /* [batch, cells, channels] while denoising, and its outcome afterwards */
    float *encoded;        /* [cells, channels] of the source */
    int32_t *tokens;       /* of the answer */
    int token_count;
    float *keys_values;    /* [tokens, ...] */
    int64_t text_bytes;    /* of the answer that have been handed out */
    uint8_t *pixels;       /* [items, ...] of the batch that are decoded */
    int items;
    double seconds[STAGE_COUNT]; /* of the stages so far, */
    int steps_done[STAGE_COUNT];
};

void job_state_free(struct job_state *state); /* what it points to */

/* *out is malloc'ed. ERROR_NO_MEMORY. */
int job_state_write(const struct job_state *state, const struct state_identity *identity,
                    const struct state_sizes *sizes, void **out, size_t *bytes, struct error *error);

/* Take a state apart that may come from anywhere: everything is checked here. `inputs` of the identity is filled with
 * the file's. Errors: ERROR_BAD_FILE (damaged, or not of this job's sizes), ERROR_UNSUPPORTED (of another build,
 * backend or model), ERROR_BAD_REQUEST (of another request), ERROR_NO_MEMORY. The state's memory is the caller's, also
 * after an error. */
int job_state_read(struct job_state *state, struct state_identity *identity, const struct state_sizes *sizes,
                   const void *data, size_t bytes, struct error *error);

#endif
