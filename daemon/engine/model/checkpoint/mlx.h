/* mlx.h: what is peculiar to the MLX releases of Lance: tensor names and config.json.
 *
 * Their model.safetensors holds the language model under the module names of xocialize/lance-mlx; vit.safetensors lies
 * beside it. In a quantised release every linear layer and embedding whose width its groups divide has .weight (U32,
 * eight 4-bit codes or four of 8 bits each, the first in the lowest bits), .scales and .biases (BF16, one a group), and
 * config.json has a "quantization" block. In the mode "nvfp4" .scales are FP8, and there are no .biases. Exports for
 * understanding alone have the names of Qwen2 (model.layers...). docs/checkpoints.md describes the formats.
 */
#ifndef LANCE_MLX_H
#define LANCE_MLX_H

#include <stdbool.h>
#include <stddef.h>

#include <cjson/cJSON.h>

#include "base/error.h"

/* The official name of an MLX release's tensor into `official`; false if `name` is not an MLX name (no official name
 * is one), or the result does not fit. */
bool mlx_official_name(const char *name, char *official, size_t bytes);

/* The "quantization" block of a config.json, or NULL when it has none. */
const cJSON *mlx_quantization(const cJSON *config);

/* Check such a block and take its group size and bits. Affine mode with 4 or 8 bits, and nvfp4, are what can be read:
 * ERROR_UNSUPPORTED otherwise. */
int mlx_check_quantization(const cJSON *quantization, const char *path, int *group_size, int *bits,
                           struct error *error);

#endif
