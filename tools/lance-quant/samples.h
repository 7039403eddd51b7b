/* samples.h: the jobs that a model is looked at with: of example files of the official code, or of prompts and
 * pictures. */
#ifndef LANCE_QUANT_SAMPLES_H
#define LANCE_QUANT_SAMPLES_H

#include "base/error.h"
#include "base/sha256.h"
#include "daemon/engine/lance.h"

struct sample {
    enum lance_task task;
    char *prompt, *system; /* `system`: NULL for the task's own */
    char *source;          /* path of a picture or video; NULL: the task has none */
};

struct samples {
    struct sample *list;
    int count;
};

/* Where a task's samples are from. */
struct sample_files {
    enum lance_task task;
    const char *examples; /* an example file; or NULL, and */
    const char *prompts;  /* a text file, a prompt or question a line, and */
    const char *pictures; /* a folder of what the task starts from, taken in turn by name; NULL where it takes none */
    int most;             /* samples; 0: all */
};

/* Add a task's samples. The message names the file: ERROR_BAD_FILE (no prompts, a source that is missing or too much),
 * ERROR_IO, ERROR_NO_MEMORY. */
int samples_add(struct samples *samples, const struct sample_files *files, struct error *error);
void samples_free(struct samples *samples);

/* Add all that they ask for to a digest. */
void samples_digest(const struct samples *samples, struct sha256 *digest);

/* How jobs are to be run; 0 (NULL): the task's own. */
struct sample_sizes {
    int steps, width, height, frames;
    const char *resolution;
    uint64_t seed; /* of the first sample; the next one has one more */
};

/* A request of sample `index`, with its source read; sample_close frees that. The request borrows the samples and
 * sizes. ERROR_BAD_FILE, ERROR_TOO_LARGE, ERROR_NO_MEMORY. */
struct sample_request {
    struct lance_request request;
    struct lance_media source;
};
int sample_open(struct sample_request *out, const struct samples *samples, int index, const struct sample_sizes *sizes,
                struct error *error);
void sample_close(struct sample_request *request);

#endif
