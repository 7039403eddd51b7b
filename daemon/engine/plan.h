/* plan.h: what a request comes to before anything is allocated: its prompt, the grids, the schedule, the passes of the
 * VAE. */
#ifndef LANCE_PLAN_H
#define LANCE_PLAN_H

#include "daemon/engine/lance_model.h"
#include "daemon/engine/model/vae.h"
#include "daemon/engine/model/vit.h"
#include "daemon/engine/limits.h"
#include "daemon/engine/model/denoiser.h"
#include "daemon/engine/model/prefix.h"
#include "daemon/engine/model/prompt.h"

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
    bool sees, encodes, decodes;
    struct picture_size vit_size, vae_size;
    struct vit_grid vit_grid;
    struct token_grid vit_tokens, encoded; /* merged ViT cells; latents of the source */

    struct prefix_options prefix;
    struct denoiser_options denoiser;
    int workspace_rows, query_rows;
    struct vae_cost encoding, decoding; /* of the source, and of one batch item's target */
};

/* Of a request that request_check accepts (request.h). Errors: ERROR_BAD_REQUEST where what it says of its source and
 * latents do not go together, ERROR_TOO_LARGE, ERROR_NO_MEMORY. The plan owns its memory until job_plan_free. */
int job_plan_make(struct job_plan *plan, const struct lance_model *model, const struct lance_request *request,
                  struct error *error);
void job_plan_free(struct job_plan *plan);

#endif
