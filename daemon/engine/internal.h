/* internal.h: what the engine's files (daemon/engine/) share behind lance.h.
 *
 *   load.c     models: open, close, info
 *   request.c  defaults and checks of a request
 *   plan.c     from a request to sizes: prompt, grids, memory
 *   prepare.c  the first stage: frames, noise and latents of the request
 *   run.c      the job's stages, step by step
 *   latents.c  latents of the client: where sampling starts, what a mask keeps, what goes back
 *   answer.c   the stage that writes text
 *   preview.c  small pictures while denoising
 */
#ifndef LANCE_INTERNAL_H
#define LANCE_INTERNAL_H

#include <stdatomic.h>
#include <stdlib.h>

#include "daemon/engine/lance.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "daemon/engine/model/decoder.h"
#include "daemon/engine/model/denoiser.h"
#include "daemon/engine/model/finite.h"
#include "daemon/engine/model/latent_tokens.h"
#include "daemon/engine/model/picture.h"
#include "daemon/engine/model/prefix.h"
#include "daemon/engine/model/prompt.h"
#include "daemon/engine/model/tokenizer/tokenizer.h"
#include "daemon/engine/model/vae.h"
#include "daemon/engine/model/vit.h"

enum {
    LANCE_MAX_BATCH = DECODER_MAX_SEQUENCES / 2,
    LANCE_MAX_SIDE = LATENT_MAX_SIDE * VAE_SPATIAL_STRIDE,                   /* 1024 pixels */
    LANCE_MAX_FRAMES = 1 + (LATENT_MAX_FRAMES - 1) * VAE_TEMPORAL_STRIDE,    /* 121 */
    LANCE_MAX_STEPS = 1000,
    LANCE_MAX_PREPARED_SIDE = PICTURE_MAX_PREPARED_SIDE,
    LANCE_MAX_NEW_TOKENS = 4096,
    LANCE_MAX_SOURCE_SIDE = 8192,
    LANCE_MAX_SOURCE_FRAMES = 100000,
    LANCE_DEFAULT_SIDE = 768,
    LANCE_VIDEO_FPS = 12
};

enum { PREVIEW_MAX_CHANNELS = 64 };

/* Red, green and blue, from -1 to 1, of a latent cell: bias + sum over channels of weight * latent. */
struct preview_colours {
    float weight[3][PREVIEW_MAX_CHANNELS];
    float bias[3];
};

struct lance_model {
    struct kernels *kernels; /* borrowed */
    struct checkpoint *checkpoint;
    struct tokenizer *tokenizer;
    struct decoder *decoder;
    struct latent_tokens *latent_tokens; /* these two NULL without generation weights */
    struct vae *vae;
    struct vit *vit; /* NULL without a ViT */
    char name[128];
    double load_seconds;
    uint64_t weight_bytes;
    uint64_t memory_at_rest; /* that the backend has in use without jobs and prefixes */
    struct prefix_cache *prefix_cache;
    uint64_t memory_limit_bytes; /* 0: none */
    uint64_t host_limit_bytes;   /* of a single job, where the backend has memory of its own; 0: none */
    uint64_t promised_bytes;     /* estimates of the jobs that are open */
    struct preview_colours colours;
    atomic_bool colours_there; /* known, or fitted by now */
};

/* What a request comes to before anything is allocated on the device. */
struct job_plan {
    struct prompt *prompt;       /* NULL: the task is the VAE's alone */
    struct token_grid target;    /* latents to generate, encode or decode; frames 0: an answer */
    int condition_frames;        /* of the target, given by the source (i2v) or kept by a mask: clean, at time 0 */
    bool guided;
    int steps;                   /* to be done, */
    float *timesteps;            /* at these times: [steps + 1] */

    /* The source: which frames are taken, and at which sizes the ViT and the VAE see them. */
    char resolution[32];         /* "": as it is, cropped to whole latent cells (encode) */
    int frame_indices[LANCE_MAX_FRAMES + 1];
    int source_frames;
    bool sees, encodes;
    struct picture_size vit_size, vae_size;
    struct vit_grid vit_grid;
    struct token_grid vit_tokens, encoded; /* merged ViT cells; latents of the source */

    struct prefix_options prefix;
    struct denoiser_options denoiser;
    int workspace_rows, query_rows;

    /* Device bytes of the parts, each as allocated. */
    uint64_t vit_token_bytes, reference_bytes, latent_bytes, logits_bytes;
    struct lance_memory source_memory; /* of the stages that read the source: vit, encode */
    struct lance_memory memory; /* the largest sums that are ever alive, when nothing is found in the prefix cache */
};

/* plan.c. Checks the request first. The plan owns its memory until job_plan_free. */
int job_plan_make(struct job_plan *plan, const struct lance_model *model, const struct lance_request *request,
                  struct error *error);
void job_plan_free(struct job_plan *plan);
/* What the plan takes of the memory that the model's limit is about; and ERROR_TOO_LARGE with the numbers when that is over
 * the limit. */
uint64_t job_plan_need(const struct job_plan *plan, const struct lance_model *model);
int job_plan_check_fit(const struct job_plan *plan, const struct lance_model *model, struct error *error);

/* latents.c. Rows of latents are [batch, cells, channels], normalised, as the denoiser has them; the client's
 * are channels first and raw. */
struct latents {
    size_t batch, cells, channels, first_row; /* rows before first_row are the source's or kept whole: clean */
    float first_t, last_t;
    bool empty;                /* the client's latents are all zero, or there are none */
    float *mask;               /* [batch, cells], or NULL; with it: */
    float *kept, *kept_noise;  /* [batch, cells, channels] */
    float *scratch;
};
int latents_check(const struct job_plan *plan, const struct lance_model *model, const struct lance_request *request,
                  struct error *error);
/* Whole frames at the front that the mask keeps of every batch item. */
int latents_kept_frames(const struct lance_latents *mask);
/* Room for what the request gives. latents_free frees it, whatever this returns. */
int latents_open(struct latents *latents, const struct lance_model *model, const struct job_plan *plan,
                 const struct lance_request *request, struct error *error);
/* `x` [cells, channels] has the noise of batch item `item`, and becomes what its sampling starts from. */
void latents_start(struct latents *latents, const struct lance_model *model, const struct lance_request *request, int item,
                   float *x);
/* After a step to time t, put what the mask keeps back into x, noised to t. */
void latents_keep(const struct latents *latents, float t, float *x);
/* The result of x: raw, and where noise is left, what makes going on exact (`state` may be NULL otherwise). */
void latents_finish(const struct latents *latents, const struct lance_model *model, const float *x, float *raw, float *state);
/* Of one item's values, channels first [channels, cells], the rows [count, channels] of the cells from first_cell on. */
void latents_frame_rows(const float *values, size_t cells, size_t channels, size_t first_cell, size_t count, float *rows);
void latents_free(struct latents *latents);

/* prepare.c. What it makes of a request; a field that is not NULL belongs to whoever holds the struct. */
struct prepared {
    uint8_t *vit_pixels; /* [2*grid.t, height, width, 3] */
    uint8_t *vae_pixels; /* [source frames, height, width, 3] */
    float *eps;          /* [channels, encoded cells]; NULL: the mean is used */
    float *initial;      /* [batch, target cells, channels], the noise, or what sampling starts from */
    struct latents given; /* what the client gave to start from */
    float *raw_latents;  /* [batch, channels, target cells], for the task decode */
};
struct prepare;
int prepare_steps(const struct job_plan *plan, const struct lance_request *request);
/* Everything must outlive the stage, what the request points to as well. ERROR_NO_MEMORY. */
int prepare_open(struct prepare **out, const struct lance_model *model, const struct job_plan *plan,
                 const struct lance_request *request, struct prepared *prepared, struct error *error);
/* Steps 0 to prepare_steps - 1, in order. ERROR_BAD_REQUEST where a value is no number. */
int prepare_step(struct prepare *prepare, int step, struct error *error);
/* After the last step: the names of the visual inputs, for the prefix cache. */
void prepare_name_inputs(struct prepare *prepare, struct prefix_options *prefix);
void prepare_close(struct prepare *prepare); /* NULL is allowed */
void prepared_free(struct prepared *prepared);

/* Host memory, zeroed. NULL where *code is an error already or becomes ERROR_NO_MEMORY. */
static inline void *host_alloc(size_t count, size_t size, const char *what, int *code, struct error *error)
{
    if (*code)
        return NULL;
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        *code = error_set(error, ERROR_NO_MEMORY, "no memory for %s (%zu bytes)", what, count * size);
    return memory;
}

/* answer.c: decoding of text. */
struct answer;
int answer_open(struct answer **out, struct lance_model *model, const struct job_plan *plan,
                const struct lance_request *request, struct prefix *prefix, struct decoder_workspace *workspace,
                struct error *error);
/* The next group of tokens. *piece is what they add to the text (whole characters, may be ""), the answer's until the next
 * call. Returns LANCE_STEP_MORE, LANCE_STEP_DONE or an error. */
int answer_step(struct answer *answer, const char **piece, struct error *error);
int answer_tokens(const struct answer *answer, const int32_t **ids);
/* The text so far, without the end token and surrounding white space; malloc'ed. */
int answer_text(const struct answer *answer, char **text, struct error *error);
void answer_close(struct answer *answer); /* NULL is allowed */

/* request.c: what can be checked of a request without a plan. */
int request_check(const struct lance_model *model, const struct lance_request *request, struct error *error);

/* preview.c: the colours of this VAE's latents, if they are known without it; false if they have to be fitted. */
bool preview_known_colours(const struct lance_config *config, struct preview_colours *colours);
/* Device memory of the first preview, while the colours are fitted; otherwise none. */
uint64_t preview_bytes(const struct lance_model *model);
/* RGB of normalised latents [cells, channels]. preview_make takes the model's colours, and fits them first if need be. */
void preview_paint(const struct preview_colours *colours, int channels, const float *latents, size_t cells, uint8_t *rgb);
int preview_make(struct lance_model *model, const float *latents, size_t cells, uint8_t *rgb, struct error *error);

#endif
