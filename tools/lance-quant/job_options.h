/* job_options.h: the options of commands that run jobs of a model: which, on what, and how large.
 *
 * --task takes part in the next --examples or --prompts, which several tasks may share.
 */
#ifndef LANCE_QUANT_JOB_OPTIONS_H
#define LANCE_QUANT_JOB_OPTIONS_H

#include <getopt.h>

#include "kernels/backend.h"
#include "tools/lance-quant/samples.h"

enum { JOB_MOST_FILES = 64 };

struct job_options {
    const char *model, *vae, *vit, *pictures;
    struct backend_options backend;
    struct sample_sizes sizes;
    struct sample_files files[JOB_MOST_FILES];
    int file_count, bound, most; /* files whose tasks have a file; samples of each task, 0: all */
    int threads;
};

/* Rows for getopt's table; their values are for job_option. */
#define JOB_OPTIONS                                                                                                    \
    {"model", required_argument, NULL, 'm'}, {"vae", required_argument, NULL, 'v'},                                    \
        {"vit", required_argument, NULL, 'V'}, {"task", required_argument, NULL, 't'},                                 \
        {"examples", required_argument, NULL, 'e'}, {"prompts", required_argument, NULL, 'p'},                         \
        {"pictures", required_argument, NULL, 'P'}, {"samples", required_argument, NULL, 'n'},                         \
        {"steps", required_argument, NULL, 's'}, {"size", required_argument, NULL, 'S'},                               \
        {"resolution", required_argument, NULL, 'r'}, {"frames", required_argument, NULL, 'f'},                        \
        {"seed", required_argument, NULL, 'd'}, {"threads", required_argument, NULL, 'j'},                             \
        {"backend", required_argument, NULL, 'b'}

/* Defaults: all processors, seed 42, the CPU where there is no card. */
void job_options_init(struct job_options *options);

/* Take option `c` with `optarg`. NULL, or what is wrong with it; *known is false for an option of another table. */
const char *job_option(struct job_options *options, int c, bool *known);

/* Open the backend and a model on it, with the VAE and ViT of the options. No prefixes are kept: what is not computed
 * again is not seen. After an error too, *model is closed and then *kernels, where they are not NULL. Errors: those of
 * backend_open and lance_model_open. */
int job_model_open(struct kernels **kernels, struct lance_model **model, const struct job_options *options,
                   const char *folder, struct error *error);

/* When all are taken: the samples they ask for. NULL, or what is missing; or `error` with a code. */
const char *job_samples(struct job_options *options, struct samples *samples, struct error *error);

#endif
