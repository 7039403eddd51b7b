/* layer_losses.h: what the outputs of each linear layer lose in another form of the same weights.
 *
 * For inputs as statistics with products have them (statistics.h): E|W'x - Wx|^2 over E|Wx|^2, its root. What a norm
 * was divided by, and the rows of up, is taken out of the columns behind, as both are in a file together.
 */
#ifndef LANCE_QUANT_LAYER_LOSSES_H
#define LANCE_QUANT_LAYER_LOSSES_H

#include "base/json.h"
#include "tools/lance-quant/job_options.h"

/* Append to `list`, for each layer and expert, {"layer", "expert": "und" | "gen", "q", "k", "v", "o", "gate", "up",
 * "down", "scales": {"qkv" | "gate_up" | "down": {"alpha", "beta"}}}, the latter as scale_fit.h sees it. VAE, ViT and
 * threads are the jobs'. Errors: those
 * of checkpoint.h and statistics.h; ERROR_BAD_FILE for models of different shapes, or statistics without products. */
int layer_losses(cJSON *list, const char *model, const char *reference, const char *statistics,
                 const struct job_options *jobs, struct error *error);

#endif
