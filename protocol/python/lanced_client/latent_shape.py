"""The shape of latents of the Wan 2.2 VAE, [batch, 48, frames, rows, columns], as protocol/latent_shape.h says it."""

LATENT_CHANNELS = 48
CELL_PIXELS = 16  # a latent cell stands for so many pixels a side
LARGEST_SIDE = 1024  # pixels, of what is made
LEAST_SOURCE_SIDE = 28  # pixels, of a source as the model is to see it
FRAMES_PER_LATENT_FRAME = 4  # of every latent frame but the first, which stands for one
