/* output.h: the folder that is being made: a safetensors file whose tensors are written one by one, in any order, and
 * what has been done of it, so that work that was cut off goes on.
 *
 * All of it is in DIR.partial, which becomes DIR when it is whole. One thread.
 */
#ifndef LANCE_QUANT_OUTPUT_H
#define LANCE_QUANT_OUTPUT_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "protocol/safetensors.h"

enum { OUTPUT_MOST_WORKS = 1 << 14 }; /* works have numbers below this */

struct output;

/* Begin DIR, or go on with what an earlier run left of it under the same `identity` (a line of text); what it left
 * under another is begun anew. `tensors` (data is not looked at) must outlive the output. Errors: ERROR_BAD_REQUEST
 * (DIR exists), ERROR_IO (also too little room on the disk, with the numbers). */
int output_open(struct output **out, const char *directory, const char *file, const char *identity,
                const struct tensor_view *tensors, size_t count, struct error *error);

/* Leaves what was done for the next run, unless output_finish was called. NULL is allowed. */
void output_close(struct output *output);

/* Write a tensor's bytes; for one in the list. */
int output_write(struct output *output, const char *name, const void *data, uint64_t bytes, struct error *error);

/* Write a tensor of floating-point numbers in bf16; with `divisor` [elements], each rounded to bf16, divided, and
 * rounded again. Errors also: ERROR_NO_MEMORY. */
int output_write_bf16(struct output *output, const struct tensor_view *tensor, const float *divisor,
                      struct error *error);

/* Whether the work of that number was done, and is on the disk; and that it is now. */
bool output_is_done(const struct output *output, int work);
int output_done(struct output *output, int work, struct error *error);
int output_done_count(const struct output *output);

/* Where a file of the folder is, until that is whole: for one that is written past output_write. ERROR_IO: too long. */
int output_path(const struct output *output, const char *name, char path[PATH_MAX], struct error *error);

/* Put a small text file beside the tensors. */
int output_text(struct output *output, const char *name, const char *text, struct error *error);

/* Everything is there: give the folder its name. ERROR_IO: it cannot have it, and a later run can try again. */
int output_finish(struct output *output, struct error *error);

#endif
