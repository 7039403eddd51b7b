/* config.h: reading a checkpoint's JSON files into struct lance_config.
 *
 * Every number is required to be there and in range unless noted; what the tensors' shapes must
 * confirm is checked later, in inventory.c. Errors: ERROR_BAD_FILE, ERROR_UNSUPPORTED (well formed, but
 * not an architecture that this program knows), ERROR_IO, ERROR_NO_MEMORY.
 */
#ifndef LANCE_CONFIG_H
#define LANCE_CONFIG_H

#include "base/json.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"

/* llm_config.json: everything but the vit and vae members. Token ids that the file does not state are -1. */
int config_read_llm(struct lance_config *config, const char *path, struct error *error);

/* Whether the file states "tie_word_embeddings": true. */
int config_has_tied_head(const char *path, bool *tied, struct error *error);

/* The vit member, from the ViT's config.json, or from a file that has the same as "vision_config". */
int config_read_vit(struct lance_config *config, const char *path, struct error *error);

/* Whether the file at `path` is a JSON object that has `key`: one with a "vision_config" describes a ViT, one with
 * "num_hidden_layers" a language model. */
bool config_has(const char *path, const char *key);

/* tokenizer_config.json: bos_token_id and eos_token_id, that is <|im_start|> and <|im_end|> (llm_config.json's own
 * bos_token_id may be another token), and those ids that config_read_llm left at -1. */
int config_read_tokens(struct lance_config *config, const char *path, struct error *error);

#endif
