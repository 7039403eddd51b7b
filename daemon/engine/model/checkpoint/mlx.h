/* mlx.h: what is peculiar to the MLX releases of Lance (mlx-community): tensor names and config.json.
 *
 * Their model.safetensors holds the language model under the module names of xocialize/lance-mlx; vit.safetensors lies
 * beside it. In a quantised release every linear layer and embedding whose width its groups divide has .weight (U32,
 * eight 4-bit codes each, the first in the lowest bits), .scales and .biases (BF16, one a group), and
 * config.json has a "quantization" block. docs/checkpoints.md describes the format.
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

/* Check such a block and take its group size. Affine mode with 4 bits is what can be read:
 * ERROR_UNSUPPORTED otherwise. */
int mlx_check_quantization(const cJSON *quantization, const char *path, int *group_size, struct error *error);

#endif
