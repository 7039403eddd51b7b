/* calibrate.h: `lance-quant calibrate`: runs jobs of a model and counts what goes into its linear layers.
 *
 * One thread steps the jobs; the engine and gather.c have their own for each piece of work. Deterministic: the same
 * jobs give the same bytes, with any number of threads, interrupted or not.
 */
#ifndef LANCE_QUANT_CALIBRATE_H
#define LANCE_QUANT_CALIBRATE_H

#include "tools/lance-quant/job_options.h"

struct calibrate_options {
    const struct job_options *jobs;
    const struct samples *samples;
    bool moments;       /* products of inputs, for error feedback: 128 numbers for each input */
    bool resume;        /* go on with what an interrupted run left beside `output` */
    const char *output; /* .safetensors; appears when all is done */
};

/* Says on stderr how far it is. While it runs, what is counted is kept in OUTPUT.partial.safetensors between samples,
 * now and then and when *interrupted is set, which ends it after the sample that runs; at 2, at once, and without that
 * sample: ERROR_CANCELLED. Other errors: those of the engine; ERROR_BAD_REQUEST when that file is there and
 * `resume` not asked for, or it is of other work. */
int calibrate(const struct calibrate_options *options, const volatile int *interrupted, struct error *error);

#endif
