/* vae_decoder.h: the VAE's decoder, latents into frames (private to vae*.c). */
#ifndef LANCE_VAE_DECODER_H
#define LANCE_VAE_DECODER_H

#include "daemon/engine/model/vae_blocks.h"

/* Errors: ERROR_BAD_FILE for widths that do not fit. */
int vae_decoder_load(struct vae_loader *loader, int *latent_channels);
void vae_decoder_run(struct vae_pass *pass); /* one latent frame */

#endif
