/* latent_shape.h: the shape that latents of the Wan 2.2 VAE have, on the wire as in the model:
 * [batch, 48, frames, rows, columns].
 *
 * A latent cell stands for 16 x 16 pixels; the first latent frame for one frame, each later one for four.
 */
#ifndef LANCE_LATENT_SHAPE_H
#define LANCE_LATENT_SHAPE_H

enum { LATENT_CHANNELS = 48, VAE_SPATIAL_STRIDE = 16, VAE_TEMPORAL_STRIDE = 4 };

/* Frames that `latent_frames` latent frames decode to, and back. */
static inline int vae_frames(int latent_frames) { return 1 + VAE_TEMPORAL_STRIDE * (latent_frames - 1); }
static inline int vae_latent_frames(int frames) { return 1 + (frames - 1) / VAE_TEMPORAL_STRIDE; }

#endif
