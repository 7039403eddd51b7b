/* tokenizer.h: the Qwen2 byte-level BPE tokenizer, from vocab.json, merges.txt and
 * tokenizer_config.json.
 *
 * Text is normalised to NFC (utf8proc), split at added tokens, split into words by the
 * Qwen2 pattern (PCRE2), mapped to the byte alphabet and merged by rank. Equal to the
 * reference tokenizer on any UTF-8 input. Immutable after opening; tokenizer_encode and
 * tokenizer_decode may be called from any thread.
 */
#ifndef LANCE_TOKENIZER_H
#define LANCE_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct tokenizer;

/* Open from a directory with vocab.json, merges.txt, tokenizer_config.json. ERROR_BAD_FILE names the file. */
int tokenizer_open(struct tokenizer **out, const char *directory, struct error *error);
void tokenizer_close(struct tokenizer *tokenizer);

/* Number of ids in use: vocabulary and added tokens (151665 for the official files). */
int tokenizer_size(const struct tokenizer *tokenizer);

/* Encode UTF-8 text, recognising special tokens in it. *ids is malloc'ed (NULL when *count is 0) and the caller's.
 * Invalid UTF-8 is ERROR_BAD_REQUEST. */
int tokenizer_encode(const struct tokenizer *tokenizer, const char *text, int32_t **ids, size_t *count,
                     struct error *error);

/* The bytes of one id (special tokens as their text), or NULL for an id that is not in use. Not necessarily whole
 * UTF-8 characters. Belongs to the tokenizer. */
const char *tokenizer_bytes(const struct tokenizer *tokenizer, int32_t id, size_t *length);

/* Decode ids to malloc'ed UTF-8 text (invalid sequences become U+FFFD, as the reference does, and so does the byte 0,
 * which a C string cannot hold), special tokens kept. An id that is not in use is ERROR_BAD_REQUEST. */
int tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t count, char **text,
                     struct error *error);

#endif
