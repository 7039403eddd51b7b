/* scores.h: how near what a model made of samples is to what its reference made of the same.
 */
#ifndef LANCE_QUANT_SCORES_H
#define LANCE_QUANT_SCORES_H

#include "base/json.h"
#include "tools/lance-quant/outcomes.h"

/* Append one entry a task to `tasks`, the means over its samples, and one a sample to `list`. Of pictures and clips:
 * latent_error, psnr_db, ssim, fine_energy (above half of Nyquist, of the reference's); of answers: same_answers,
 * token_agreement, tokens_before_divergence, and how well the reference's answer is expected: perplexity (the mean over
 * samples of its logarithm) and reference_perplexity. ERROR_INTERNAL (results of different shapes), ERROR_NO_MEMORY. */
int scores_add(cJSON *tasks, cJSON *list, const struct samples *samples, const struct outcome *ours,
               const struct outcome *theirs, struct error *error);

#endif
