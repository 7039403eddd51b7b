/* compare.h: `lance-quant compare`: what a model makes of the same jobs as its reference, with the same noise. */
#ifndef LANCE_QUANT_COMPARE_H
#define LANCE_QUANT_COMPARE_H

#include "tools/lance-quant/job_options.h"
#include "tools/lance-quant/recipe.h"

enum { COMPARE_MOST_RECIPES = 2 };

struct compare_options {
    const char *reference; /* folder */
    const char *output;    /* a folder that is not there yet: report.json, report.md, sheet.png where pictures are */
    const char *statistics; /* with products (statistics.h), for what each layer loses; NULL: without that */
    const char *text;       /* a file whose perplexity is told; NULL: none */
    const struct job_options *jobs;
    const struct samples *samples;
    /* In place of the jobs' model: those that these recipes make of the reference, which is a release, and of the
     * statistics. Each has a folder of its name in the output, with the model and a report of its own. */
    struct recipe recipes[COMPARE_MOST_RECIPES];
    int recipe_count;
};

/* The models run one after the other, the reference once. Errors: those of outcomes.h; ERROR_BAD_REQUEST (the
 * folder exists), ERROR_IO. */
int compare(const struct compare_options *options, const volatile int *interrupted, struct error *error);

#endif
