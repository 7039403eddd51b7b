/* reading.h: what a model expects after each token of a text that is given: for whoever measures one model by another.
 *
 * A face of the engine beside lance.h. A text may stand alone, from position 0 on, without a system prompt, when the
 * understanding expert reads it as it reads a question; or it is the answer that a job is told to give.
 */
#ifndef LANCE_READING_H
#define LANCE_READING_H

#include <stdint.h>

#include "base/error.h"

struct lance_job;
struct lance_model;

enum { LANCE_READING_TOKENS = 2048 }; /* at most, at a time */

/* The tokens of UTF-8 text, special ones recognised; *ids is malloc'ed (NULL when there are none), the caller's.
 * Errors: ERROR_BAD_REQUEST (no UTF-8), ERROR_TOO_LARGE (more than an int counts), ERROR_NO_MEMORY. */
int lance_text_tokens(const struct lance_model *model, const char *text, int32_t **ids, int *count,
                      struct error *error);

/* What is expected after token `token` (-1: after the question): logits [vocabulary] of all ids, those
 * the tokenizer does not know included, valid until it returns. */
typedef void lance_reading_watch(void *context, int token, const float *logits, int vocabulary);

/* Read `count` tokens, from 1 to LANCE_READING_TOKENS, and show `watch` what is expected after each, in order. No job's
 * step is running. Errors: ERROR_TOO_LARGE, ERROR_INTERNAL (an id that the model does not have), ERROR_BAD_FILE (logits
 * that are no numbers), ERROR_NO_MEMORY, those of the device. */
int lance_read(struct lance_model *model, const int32_t *ids, int count, lance_reading_watch *watch, void *context,
               struct error *error);

/* Before the first step of a job that answers: its answer is to be these tokens, as many as its max_new_tokens, and
 * `watch` is shown what is expected before each. `ids` is borrowed until the job is closed. ERROR_BAD_REQUEST: a job of
 * another kind, another number of tokens, or an id that the model does not have. */
int lance_job_say(struct lance_job *job, const int32_t *ids, int count, lance_reading_watch *watch, void *context,
                  struct error *error);

#endif
