/* export_vit.h: the ViT of a release as it stands beside MLX's weights: the official tensors in one file, the patch
 * embedding in the order in which MLX keeps convolutions, [out, t, h, w, in].
 */
#ifndef LANCE_QUANT_EXPORT_VIT_H
#define LANCE_QUANT_EXPORT_VIT_H

#include "tools/lance-quant/output.h"

/* Write vit.safetensors into the output from Qwen2.5-VL-ViT in the release's folder or beside it; *found is false where
 * there is none, which is no error. Errors: ERROR_BAD_FILE, ERROR_IO, ERROR_NO_MEMORY. */
int export_vit(const struct output *output, const char *release, bool *found, struct error *error);

#endif
