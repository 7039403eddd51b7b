/* latents.h: latents of the client: where sampling starts, what a mask keeps, and what goes back.
 *
 * Rows of latents are [batch, cells, channels], normalised, as the denoiser has them; the client's are channels first
 * and raw. A struct latents is plain memory of its holder; latents_free frees what it has.
 */
#ifndef LANCE_LATENTS_H
#define LANCE_LATENTS_H

#include "daemon/engine/lance_model.h"
#include "daemon/engine/model/token_grid.h"

/* What is sampled: the target's grid, whole frames at its front that are given, the first and the last time. */
struct latents_shape {
    int batch;
    struct token_grid grid;
    int condition_frames;
    float first_t, last_t;
};

struct latents {
    size_t batch, cells, channels, first_row; /* rows before first_row are the source's or kept whole: clean */
    float first_t, last_t;
    bool empty;                /* the client's latents are all zero, or there are none */
    float *mask;               /* [batch, cells], or NULL; with it: */
    float *kept, *kept_noise;  /* [batch, cells, channels] */
    float *scratch;
};

/* That the request's latents, state and mask have the shape of its target, and that the mask says something. */
int latents_check(struct token_grid target, const struct lance_model *model, const struct lance_request *request,
                  struct error *error);

/* Whole frames at the front that the mask keeps of every batch item. */
int latents_kept_frames(const struct lance_latents *mask);

/* Room for what the request gives; and what that comes to. latents_free frees it, whatever this returns. */
int latents_open(struct latents *latents, const struct lance_model *model, const struct latents_shape *shape,
                 const struct lance_request *request, struct error *error);
uint64_t latents_bytes(const struct latents_shape *shape, int channels, bool masked);
void latents_free(struct latents *latents);

/* `x` [cells, channels] has the noise of batch item `item`, and becomes what its sampling starts from. */
void latents_start(struct latents *latents, const struct lance_model *model, const struct lance_request *request,
                   int item, float *x);

/* After a step to time t, put what the mask keeps back into x, noised to t. */
void latents_keep(const struct latents *latents, float t, float *x);

/* The result of x: raw, and where noise is left, what makes going on exact (`state` may be NULL otherwise). */
void latents_finish(const struct latents *latents, const struct lance_model *model, const float *x, float *raw,
                    float *state);

/* Of one item's values, channels first [channels, cells], the rows [count, channels] of the cells from first_cell
 * on. */
void latents_frame_rows(const float *values, size_t cells, size_t channels, size_t first_cell, size_t count,
                        float *rows);

#endif
