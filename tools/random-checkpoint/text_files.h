/* text_files.h: the configuration, tokenizer and meta files of a checkpoint. Errors of all: ERROR_IO. */
#ifndef RANDOM_CHECKPOINT_TEXT_FILES_H
#define RANDOM_CHECKPOINT_TEXT_FILES_H

#include "tools/random-checkpoint/tensors.h"

/* llm_config.json and the ViT's config.json. */
int text_write_llm_config(const char *path, const struct sizes *sizes, struct error *error);
int text_write_vit_config(const char *path, const struct sizes *sizes, struct error *error);

/* awq_meta.json or nvfp4_meta.json for a list in a 4-bit form. */
int text_write_meta(const char *path, const struct tensor_list *list, enum form form, struct error *error);

/* vocab.json, merges.txt and tokenizer_config.json in `folder`: a byte-level vocabulary as large as the official one,
 * with the official special tokens under their ids. Its other tokens are two bytes, or three where the first is a space
 * or an "a": prompts become about twice as many tokens as officially. */
int text_write_tokenizer(const char *folder, struct error *error);

#endif
