/* releases.h: makes other published forms of Lance out of a complete official model folder, for tests.
 *
 * Every function fills `into_dir`, which is created, from `model_dir` (model.safetensors, Qwen2.5-VL-ViT and so on);
 * files that stay as they are become symbolic links. Errors: ERROR_BAD_FILE, ERROR_IO, ERROR_NO_MEMORY.
 */
#ifndef LANCE_TESTS_RELEASES_H
#define LANCE_TESTS_RELEASES_H

#include <stdbool.h>

#include "base/error.h"

/* As converted for MLX: config.json, vit.safetensors, tensors under MLX's names, norms widened to float32; no VAE. With
 * a group_size other than 0 also quantised, by MLX's affine rule with 4 or 8 bits. */
int release_mlx(const char *model_dir, const char *into_dir, int group_size, int bits, bool channels_last_vit,
                struct error *error);

/* The official folder in float32, its weights being what those of release_mlx stand for; no VAE. */
int release_mlx_twin(const char *model_dir, const char *into_dir, int group_size, int bits, struct error *error);

/* An export for understanding: neither weights for generation nor a VAE. */
int release_understanding(const char *model_dir, const char *into_dir, struct error *error);

/* As Lance_3B_Video: the ViT's tensors are in the main file, and there is no vit.safetensors. */
int release_video(const char *model_dir, const char *into_dir, struct error *error);

#endif
