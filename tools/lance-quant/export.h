/* export.h: `lance-quant export`: a release in bf16 or float32 as other programs read it.
 *
 *   mlx      both experts, affine codes, names and config.json of mlx-community's releases, for lance-mlx
 *   mlx-und  understanding alone, affine codes, as Qwen2, for mlx-lm: without the official head norms
 *   hf-und   understanding alone, in bf16, for transformers: as Qwen3 with attention biases, which has head norms; or
 *            without them as Qwen2
 */
#ifndef LANCE_QUANT_EXPORT_H
#define LANCE_QUANT_EXPORT_H

#include "tools/lance-quant/export_layout.h"

/* The folder appears when it is whole. *interrupted ends it between two tensors: ERROR_CANCELLED; called again, it goes
 * on. Errors: ERROR_BAD_REQUEST (the output exists; head norms would be lost), ERROR_BAD_FILE, ERROR_IO,
 * ERROR_NO_MEMORY. Memory: the codes of one tensor. */
int export_release(const struct export_options *options, const volatile int *interrupted, struct error *error);

#endif
