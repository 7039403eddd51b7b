/* preview.h: small pictures while denoising: colours of latent cells without the VAE. */
#ifndef LANCE_PREVIEW_H
#define LANCE_PREVIEW_H

#include "daemon/engine/lance_model.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"

/* The colours of this VAE's latents, if they are known without it; false if they have to be fitted. */
bool preview_known_colours(const struct lance_config *config, struct preview_colours *colours);

/* Device memory of the first preview, while the colours are fitted; otherwise none. */
uint64_t preview_bytes(const struct lance_model *model);

/* RGB of normalised latents [cells, channels]. preview_make takes the model's colours, and fits them first if need
 * be. */
void preview_paint(const struct preview_colours *colours, int channels, const float *latents, size_t cells,
                   uint8_t *rgb);
int preview_make(struct lance_model *model, const float *latents, size_t cells, uint8_t *rgb, struct error *error);

#endif
