/* vocabulary.h: the tokens of a tokenizer, by id and by their bytes.
 *
 * Filled once while the tokenizer's files are read, then only read (from any thread).
 */
#ifndef LANCE_VOCABULARY_H
#define LANCE_VOCABULARY_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { VOCABULARY_MAX_IDS = 1 << 22 };

struct vocabulary;

int vocabulary_open(struct vocabulary **out, struct error *error);
void vocabulary_close(struct vocabulary *vocabulary); /* NULL is allowed */

/* Add a token; the bytes are copied. Errors: ERROR_BAD_FILE (the id or the bytes are taken by another token, or
 * the id is out of range), ERROR_NO_MEMORY. Adding the same pair again is harmless. */
int vocabulary_add(struct vocabulary *vocabulary, int64_t id, const char *bytes, size_t length, struct error *error);

int vocabulary_count(const struct vocabulary *vocabulary);

/* Every id is below this. */
int32_t vocabulary_id_limit(const struct vocabulary *vocabulary);

/* The id of a token, or -1. */
int32_t vocabulary_find(const struct vocabulary *vocabulary, const char *bytes, size_t length);

/* The bytes of a token, NUL-terminated, or NULL when the id is not in use. */
const char *vocabulary_bytes(const struct vocabulary *vocabulary, int32_t id, size_t *length);

#endif
