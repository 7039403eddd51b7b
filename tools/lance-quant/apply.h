/* apply.h: `lance-quant apply`: from a release in bf16 or float32 to one of 4-bit weights.
 */
#ifndef LANCE_QUANT_APPLY_H
#define LANCE_QUANT_APPLY_H

#include "base/error.h"
#include "tools/lance-quant/recipe.h"

struct apply_options {
    const char *model;      /* folder of the release */
    const char *statistics; /* file */
    const char *output;     /* folder that is to be */
    const char *sensitivities; /* file that a mix is chosen by (mix.h), or NULL */
    struct recipe recipe;
    int threads;
};

/* Part after part, so that memory does not grow with the model; the folder appears when it is whole, and a run that was
 * cut off goes on when it is called again. Says on stderr how far it is. *interrupted, set by a signal, ends it between
 * two parts: ERROR_CANCELLED. Errors: ERROR_BAD_FILE, ERROR_BAD_REQUEST (the output exists), ERROR_IO, ERROR_NO_MEMORY.
 */
int apply(const struct apply_options *options, const volatile int *interrupted, struct error *error);

#endif
