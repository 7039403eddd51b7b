/* latent_shape.h: the shape that latents of the Wan 2.2 VAE have, on the wire as in the model:
 * [batch, 48, frames, rows, columns].
 *
 * A latent cell stands for 16 x 16 pixels; the first latent frame for one frame, each later one for four. Beside it,
 * how large pictures may be.
 */
#ifndef LANCE_LATENT_SHAPE_H
#define LANCE_LATENT_SHAPE_H

enum { LATENT_CHANNELS = 48, VAE_SPATIAL_STRIDE = 16, VAE_TEMPORAL_STRIDE = 4 };
/* Pixels a side: of what is made at most; of a source, as the model is to see it, at least (the vision transformer
 * takes two by two patches of 14). */
enum { LARGEST_SIDE = 1024, LEAST_SOURCE_SIDE = 28 };
/* The least size of a source that is asked for in pixels, which is a multiple of the stride. */
static inline int least_source_size(void)
{
    return (LEAST_SOURCE_SIDE + VAE_SPATIAL_STRIDE - 1) / VAE_SPATIAL_STRIDE * VAE_SPATIAL_STRIDE;
}

/* Frames that `latent_frames` latent frames decode to, and back. */
static inline int vae_frames(int latent_frames) { return 1 + VAE_TEMPORAL_STRIDE * (latent_frames - 1); }
static inline int vae_latent_frames(int frames) { return 1 + (frames - 1) / VAE_TEMPORAL_STRIDE; }

#endif
