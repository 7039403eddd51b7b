/* stages.h: the stages of a job: what they share, what one leaves to those after it, and what a stage is.
 *
 *   prepare  some frames of the source, the encoder's noise, or the noise of a batch item, per step
 *   vit      one transformer block of the vision encoder per step
 *   encode   one latent frame of the source per step; of a large one, one block of the VAE's layers
 *   prefix   one split of the prompt per step, into KV caches; those that an earlier job left in the prefix cache are
 *            not run again
 *   denoise  one Euler step of all batch items per step
 *   decode   one latent frame of one batch item per step; of a large one, one block of the VAE's layers
 *   text     a few tokens of the answer per step
 *
 * run.c goes through them in the order of enum lance_stage. A stage is opened when its turn comes, stepped, ended, and
 * closed, which may come at any time. It allocates its own memory when it is opened; need() says how much, in the same
 * file.
 *
 * A struct job belongs to the lance_job that it is part of (run.c). A stage takes what earlier ones have left, and
 * frees it when nobody after it needs it; its own memory is in a struct of its own, in its own file.
 */
#ifndef LANCE_STAGES_H
#define LANCE_STAGES_H

#include "daemon/engine/host_memory.h"
#include "daemon/engine/latents.h"
#include "daemon/engine/plan.h"
#include "daemon/engine/reading.h"
#include "daemon/engine/state.h"

/* What is handed over. A field that is not NULL belongs to whoever holds the struct. */
struct handover {
    /* host */
    uint8_t *vit_pixels;   /* [2*grid.t, height, width, 3] */
    uint8_t *vae_pixels;   /* [source frames, height, width, 3] */
    float *eps;            /* [channels, encoded cells]; NULL: the encoder's mean is used */
    struct latents given;  /* what the client gave to start from */
    float *x;              /* [batch, target cells, channels], normalised: the noise, what sampling starts from, its
                            * outcome */
    float *encoded;        /* [encoded cells, channels], normalised latents of the source */
    float *raw_latents;    /* [batch, channels, target cells], the result, or what is decoded */
    float *latent_state;   /* the same, normalised, where noise is left */
    uint8_t *pixels;       /* [batch, frames, height, width, 3] */
    char *text;
    int32_t *token_ids;
    int tokens;
    char inputs[65];       /* hash of what preparing has made of the request's payloads */
    /* device */
    act *vit_tokens;
    struct prefix *prefix;
    struct decoder_workspace *workspace;
};

/* An answer that is given (reading.h): max_new_tokens ids, borrowed. */
struct given_answer {
    const int32_t *ids; /* NULL: none is */
    lance_reading_watch *watch;
    void *context;
};

struct job {
    struct lance_model *model;
    struct kernels *kernels;
    struct lance_request request; /* its pointers are not used after the first stage */
    struct job_plan plan;
    bool prepared;                /* the first stage has ended */
    struct handover left;
    struct given_answer given_answer;
    struct job_state *resumed;    /* where an earlier process left the job, until the stage it was in begins; NULL
                                   * otherwise */
};

/* Bytes of what is handed over, each exactly as it is allocated. */
struct handover_sizes {
    uint64_t vit_pixels, vae_pixels, eps, given, x, encoded, raw_latents, latent_state, pixels; /* host */
    uint64_t vit_tokens, prefix, workspace;                                                     /* device */
};
struct handover_sizes handover_sizes_of(const struct job *job);
void handover_free(struct handover *left, struct kernels *kernels);

/* Sizes that stages have in common. */
size_t job_channels(const struct job *job);      /* of latents; 0 where the model has none */
size_t job_target_cells(const struct job *job);
size_t job_item_values(const struct job *job);   /* floats of one batch item's latents */
size_t job_picture_bytes(const struct job *job); /* one decoded frame, RGB */
size_t grid_frame_cells(struct token_grid grid);
struct latents_shape job_latents_shape(const struct job *job);

/* Whether the stage is the one that a resumed job was in: what it holds is then in job->resumed. */
bool job_resumes(const struct job *job, enum lance_stage stage);

int device_alloc(const struct job *job, void *out, uint64_t bytes, struct error *error);
void device_free(const struct job *job, void *memory_pointer); /* and set it to NULL */

/* The decoder's workspace, when it is first needed. */
int job_open_workspace(struct job *job, struct error *error);
void job_close_workspace(struct job *job);

/* The job is done with its prefix; others may want it. */
void job_close_prefix(struct job *job);

/* ---- what a stage is ---- */

struct stage_bytes {
    uint64_t device, host;
};

struct stage_need {
    struct stage_bytes own;    /* while it runs, beside what was left to it */
    struct stage_bytes leaves; /* what it makes for later stages and the result; there while it runs, too */
    struct stage_bytes frees;  /* of what was left to it, what is gone once it has ended */
};

/* A step: what is done of how many. A stage may find, in a step, that it has fewer. */
struct stage_turn {
    int step, steps;
    const char *text; /* made by this step, or NULL; the stage's until its next step */
};

struct stage_kind {
    /* Steps that the job has of it: while it is not prepared all that there may be, afterwards those that are left to
     * do. */
    int (*steps)(const struct job *job);
    int (*size)(const struct job *job); /* the same with a latent frame of the VAE as one step; NULL: as `steps` */
    void (*need)(const struct job *job, struct stage_need *need);
    int (*open)(void **stage, struct job *job, struct error *error); /* *stage is to be closed whatever this returns */
    /* Do step turn->step and set it to the number of steps done. */
    int (*step)(void *stage, struct stage_turn *turn, struct error *error);
    int (*end)(void *stage, struct error *error); /* leave what was made, free what nobody needs any more */
    void (*close)(void *stage);                   /* NULL is allowed */
    /* Add to a state what the stage needs to go on; NULL: it begins again. */
    int (*save)(const void *stage, struct job_state *state, struct error *error);
};

extern const struct stage_kind prepare_stage, vit_stage, encode_stage, prefix_stage, denoise_stage, decode_stage,
    text_stage;

#endif
