/* perplexity.h: how well a model expects a text.
 */
#ifndef LANCE_QUANT_PERPLEXITY_H
#define LANCE_QUANT_PERPLEXITY_H

#include "daemon/engine/reading.h"

struct text_loss {
    int tokens;        /* that were expected: all but the first of each window */
    double perplexity; /* exp of the mean of -log of their probabilities */
};

/* What was expected of tokens: a lance_reading_watch's context. Token i + 1 stands at ids[i + 1], a first one that was
 * expected at ids[0]. */
struct expectation {
    const int32_t *ids;
    int count;
    double lost; /* the sum of -log of their probabilities so far */
};
void expectation_watch(void *expectation, int token, const float *logits, int vocabulary);

/* Read the text of a file in windows of 512 tokens, each by itself, and see what each token was expected with.
 * ERROR_CANCELLED when *interrupted is set; ERROR_BAD_FILE (fewer than two tokens), ERROR_IO, those of reading.h. */
int perplexity_of_file(struct text_loss *out, struct lance_model *model, const char *path,
                       const volatile int *interrupted, struct error *error);

#endif
