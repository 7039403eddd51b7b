/* vae_encoder.h: the VAE's encoder, frames into latents (private to vae*.c). */
#ifndef LANCE_VAE_ENCODER_H
#define LANCE_VAE_ENCODER_H

#include "daemon/engine/model/vae_blocks.h"

/* Errors: ERROR_BAD_FILE for widths that do not fit. */
int vae_encoder_load(struct vae_loader *loader, int latent_channels);
void vae_encoder_run(struct vae_pass *pass); /* one latent frame */

#endif
