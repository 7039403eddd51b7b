/* vae.h: the Wan 2.2 video autoencoder, decoder and encoder, in causal chunks.
 *
 * Chunks follow the official code (LANCE.md section 5; modeling/vae/wan/vae2_2.py): the
 * decoder takes one latent frame at a time and gives 1 frame for the first, 4 for each
 * later one; the encoder takes 1 frame first, then 4. Between chunks each causal
 * convolution keeps its last two input frames, so memory does not grow with the number
 * of frames. A pass owns that cache and its scratch; several passes may be alive.
 * Used by the thread that owns the kernels.
 */
#ifndef LANCE_VAE_H
#define LANCE_VAE_H

#include <stdint.h>

#include "base/error.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "kernels/kernels.h"
#include "protocol/latent_shape.h"

struct vae;

/* Open the decoder and encoder of a checkpoint that has a VAE; both must outlive the object. */
int vae_open(struct vae **out, struct kernels *kernels, const struct checkpoint *checkpoint, struct error *error);
void vae_close(struct vae *vae);
int vae_latent_channels(const struct vae *vae);

/* Normalised latent = (raw - mean) / std and back, per channel, in place; values [cells, channels]. */
void vae_latent_to_raw(const struct vae *vae, float *values, size_t cells);
void vae_latent_from_raw(const struct vae *vae, float *values, size_t cells);

/* What a decode or encode pass over `latent_frames` latent frames of this size (rows, columns of latent cells) comes
 * to. A single frame needs no cache; from two frames on, their number does not matter for the memory. */
struct vae_cost {
    uint64_t device_bytes, host_bytes; /* exactly what the pass allocates */
    int steps;                         /* of all frames: one for a small frame, otherwise one for each block of layers,
                                        * so that a large picture shows progress too */
};
/* ERROR_NO_MEMORY. */
int vae_decode_cost(const struct vae *vae, int latent_frames, int latent_height, int latent_width,
                    struct vae_cost *cost, struct error *error);
int vae_encode_cost(const struct vae *vae, int latent_frames, int latent_height, int latent_width,
                    struct vae_cost *cost, struct error *error);

struct vae_pass;

/* Decoding: begin, then the latent frames in order, `latent_frames` of them, each by calls that return 1 until the
 * frame is done (0). `latent` is [latent_height*latent_width, channels] in the raw scale, host memory. `pixels`
 * receives *frames (1 or 4) frames [height, width, 3], clamped to [-1, 1], host memory with room for 4 frames, the same
 * for all calls of a frame. */
int vae_decode_begin(struct vae_pass **out, struct vae *vae, int latent_frames, int latent_height, int latent_width,
                     struct error *error);
int vae_decode_step(struct vae_pass *pass, const float *latent, float *pixels, int *frames, struct error *error);
/* All steps of a frame. */
int vae_decode_frame(struct vae_pass *pass, const float *latent, float *pixels, int *frames, struct error *error);

/* Encoding: begin, then the latent frames to come, each by calls that return 1 until the frame is done (0): 1 frame of
 * pixels for the first, then 4 (the caller truncates to 4m+1 frames). `pixels` [frames, height, width, 3] in [-1, 1],
 * host memory, the same for all calls of a frame. `mean` and `log_variance` [latent_height*latent_width, channels] are
 * filled by the last call, the mean normalised, the log variance not (as officially). */
int vae_encode_begin(struct vae_pass **out, struct vae *vae, int latent_frames, int latent_height, int latent_width,
                     struct error *error);
int vae_encode_step(struct vae_pass *pass, const float *pixels, int frames, float *mean, float *log_variance,
                    struct error *error);
int vae_encode_frames(struct vae_pass *pass, const float *pixels, int frames, float *mean, float *log_variance,
                      struct error *error); /* all steps */

void vae_pass_close(struct vae_pass *pass); /* NULL is allowed */

/* uint8 = round((clip(x, -1, 1) * 0.5 + 0.5) * 255), half to even, as the official code saves. */
void vae_pixels_to_u8(const float *pixels, uint8_t *out, size_t n);

#endif
