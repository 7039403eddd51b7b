/* mix.h: which form each linear layer gets in a mixed folder: 4 bits with groups of 128 or of 64, 8 bits, or bf16, so
 * that what their outputs lose is least for a number of bits a weight.
 *
 * What a layer loses in a form is measured on some of its rows, as a part of what it gives. The layers count alike, or
 * as a file has it that says of each how far results are off when it alone is in 4 bits: a JSON object of numbers by
 * the layers' names, without ".weight" (tools/layer_sensitivities.py makes it). The bits are those of the linear layers
 * of both experts, their scales and zeros included.
 */
#ifndef LANCE_QUANT_MIX_H
#define LANCE_QUANT_MIX_H

#include "daemon/engine/tap.h"
#include "tools/lance-quant/layout.h"

struct mix_options {
    const struct source *source;
    const struct statistics *statistics;
    const char *sensitivities; /* file, or NULL */
    int layers;
    double budget; /* bits a weight */
    int threads;
};

/* Deterministic, whatever `threads`. ERROR_BAD_REQUEST: the budget is below what 4 bits take; ERROR_BAD_FILE
 * (also sensitivities that lack a layer), ERROR_IO, ERROR_NO_MEMORY. Cost: 32 rows of each layer, three times. */
int mix_choose(struct mix *out, const struct mix_options *options, struct error *error);
void mix_close(struct mix *mix); /* an empty one, too */

#endif
