/* token_sampler.h: the next token from the model's logits.
 *
 * Temperature 0 takes the largest logit (the lowest id among equals), as the official script does. Otherwise, in this
 * order: repetition penalty, temperature, top_k, top_p, and a draw from what is left, reproducible from the seed.
 * Host memory only.
 */
#ifndef LANCE_TOKEN_SAMPLER_H
#define LANCE_TOKEN_SAMPLER_H

#include <stdint.h>

#include "base/error.h"

struct token_sampler_options {
    double temperature;        /* 0: greedy */
    int top_k;                 /* 0: off */
    double top_p;              /* 1: off */
    double repetition_penalty; /* 1: off; applies to `previous` */
    uint64_t seed;
};

/* Choose from logits[0 .. count), which are changed. `previous` are the answer's tokens so far; the draw
 * for token number `previous_count` is its own. *token is the id. Errors: ERROR_NO_MEMORY, ERROR_INTERNAL
 * when no logit is a number. */
int token_sampler_next(const struct token_sampler_options *options, float *logits, int count, const int32_t *previous,
                       int previous_count, int32_t *token, struct error *error);

#endif
