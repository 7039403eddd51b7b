/* compare.h: `lance-quant compare`: what a model makes of the same jobs as its reference, with the same noise. */
#ifndef LANCE_QUANT_COMPARE_H
#define LANCE_QUANT_COMPARE_H

#include "tools/lance-quant/job_options.h"

struct compare_options {
    const char *reference; /* folder */
    const char *output;    /* a folder that is not there yet: report.json, report.md, sheet.png where pictures are */
    const char *statistics; /* with products (statistics.h), for what each layer loses; NULL: without that */
    const struct job_options *jobs;
    const struct samples *samples;
};

/* Both models run one after the other. Errors: those of outcomes.h; ERROR_BAD_REQUEST (the folder exists), ERROR_IO. */
int compare(const struct compare_options *options, const volatile int *interrupted, struct error *error);

/* Its command line; returns the exit status. optind is at the first option. */
int compare_command(int argc, char **argv);

#endif
