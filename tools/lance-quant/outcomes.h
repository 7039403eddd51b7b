/* outcomes.h: what came out of samples that a model ran: latents, pictures, answers. */
#ifndef LANCE_QUANT_OUTCOMES_H
#define LANCE_QUANT_OUTCOMES_H

#include "tools/lance-quant/job_options.h"
#include "tools/lance-quant/perplexity.h"

/* Of one sample; its own copies. */
struct outcome {
    float *latents; /* NULL for an answer */
    size_t latent_count;
    uint8_t *pixels; /* [frames, height, width, 3] */
    int frames, height, width;
    char *text; /* NULL but for an answer */
    int32_t *token_ids;
    int tokens;
    double lost; /* of an answer: the sum of -log of the probabilities with which the expected answer's tokens came */
};

struct outcomes_options {
    const char *model; /* folder; in place of the jobs' own */
    const struct job_options *jobs;
    const struct samples *samples;
    const char *text; /* a file to be read, too; or NULL */
    const struct outcome *expected; /* [samples] whose answers this model is asked for; NULL: its own */
};

/* Open the model, run every sample, read the text, close it. `outcomes` [samples], zeros, is filled; outcomes_free
 * frees it, also after an error; *loss is the text's. Says on stderr how far it is.
 * ERROR_CANCELLED when *interrupted is set; errors of the engine. */
int outcomes_run(struct outcome *outcomes, struct text_loss *loss, const struct outcomes_options *options,
                 const volatile int *interrupted, struct error *error);
void outcomes_free(struct outcome *outcomes, int count); /* NULL is allowed */

#endif
