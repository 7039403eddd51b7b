/* source.h: the weights of an official release, in bf16 or float32, that are to be quantised: one file or several,
 * mapped.
 */
#ifndef LANCE_QUANT_SOURCE_H
#define LANCE_QUANT_SOURCE_H

#include <stddef.h>

#include "base/sha256.h"
#include "protocol/safetensors.h"

struct source;

/* Open DIR/model.safetensors, or the files that DIR/model.safetensors.index.json names. Errors: ERROR_BAD_FILE, with
 * words for a folder that is quantised already; ERROR_NO_MEMORY, ERROR_IO. */
int source_open(struct source **out, const char *directory, struct error *error);
void source_close(struct source *source); /* NULL is allowed */

size_t source_count(const struct source *source);
const struct tensor_view *source_at(const struct source *source, size_t index);       /* sorted by name */
const struct tensor_view *source_find(const struct source *source, const char *name); /* or NULL */

/* Add names, types, shapes and a sample of the values to a digest that tells whether work that was begun can go on. */
void source_digest(const struct source *source, struct sha256 *digest);

#endif
