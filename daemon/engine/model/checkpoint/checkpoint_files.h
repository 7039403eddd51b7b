/* checkpoint_files.h: where the files of a checkpoint are.
 *
 * Official release: MODEL/{model.safetensors, llm_config.json, vocab.json, merges.txt, tokenizer_config.json},
 * and beside MODEL the folder Qwen2.5-VL-ViT/{vit.safetensors, config.json} and Wan2.2_VAE.pth; these two
 * may also be inside MODEL. A quantised release holds only its state dict and meta file, so configuration and
 * tokenizer are then looked for beside it: in the parent folder, and in an official folder Lance_3B or
 * Lance_3B_Video there. The same goes for a release for MLX, MODEL/{model.safetensors, config.json, vit.safetensors},
 * whose config.json is the llm_config.json.
 */
#ifndef LANCE_CHECKPOINT_FILES_H
#define LANCE_CHECKPOINT_FILES_H

#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "daemon/engine/model/checkpoint/notes.h"

/* Paths; an empty string for a file that was not found. */
struct checkpoint_files {
    char directory[PATH_MAX]; /* MODEL, absolute */
    char weights[CHECKPOINT_MAX_SHARDS][PATH_MAX];
    int weights_count;
    char meta[PATH_MAX];      /* awq_meta.json, nvfp4_meta.json, or MLX's config.json if it has a "quantization" */
    bool meta_expected;       /* the weights are an AWQ or NVFP4 state dict */
    char llm_config[PATH_MAX];
    char tokenizer_directory[PATH_MAX];
    char vit_weights[PATH_MAX];
    char vit_config[PATH_MAX];
    char vae[PATH_MAX];
};

/* What to tell the user about a part that is optional and not there. */
extern const char checkpoint_vae_advice[], checkpoint_vit_advice[];

/* Fill `files`. Required files that are not there are added to `missing`, which is no error here; odd
 * finds to `warnings`. Errors: ERROR_BAD_FILE when model_dir is no directory, or a path given in the
 * options or a shard is not there. */
int checkpoint_files_find(struct checkpoint_files *files, const struct checkpoint_options *options,
                          struct notes *missing, struct notes *warnings, struct error *error);

#endif
