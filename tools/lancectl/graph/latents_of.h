/* latents_of.h: ComfyUI's LATENT as what the daemon samples from, and back, as comfyui_nodes/latents.py does it. */
#ifndef LANCECTL_GRAPH_LATENTS_OF_H
#define LANCECTL_GRAPH_LATENTS_OF_H

#include <stdint.h>

#include "protocol/safetensors.h"
#include "tools/lancectl/graph/value.h"

/* The shape [batch, 48, frames, rows, columns] of a latent, and its samples, which are malloc'ed. An empty latent of
 * another model gets this one's shape, for the same size in pixels. ERROR_BAD_REQUEST for one that is no such
 * latent. */
int latents_of(float **samples, int shape[LATENT_DIMENSIONS], const struct latent *latent, struct error *error);

/* f32 [batch, frames * rows * columns, 48], malloc'ed: the noise that KSampler draws for the seed, or that of
 * another latent (`noise`, which may be NULL). */
int latents_noise(float **rows, const struct latent *latent, const int shape[LATENT_DIMENSIONS], uint64_t seed,
                  const struct latent *noise, struct error *error);

/* A latent of f32 tensors [batch, 48, frames, rows, columns]; `state` may be NULL. Copied. ERROR_INTERNAL for other
 * tensors. */
int latents_take(struct latent *out, const struct tensor_view *samples, const struct tensor_view *state,
                 struct error *error);

#endif
