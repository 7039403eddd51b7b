/* arguments.h: lancectl's command line, parsed and checked.
 *
 * What a number may be is the daemon's business (it knows the model); here only its form
 * is checked. Options that were not given are not sent, so the daemon's defaults apply.
 */
#ifndef LANCECTL_ARGUMENTS_H
#define LANCECTL_ARGUMENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum command {
    COMMAND_T2I, COMMAND_T2V, COMMAND_I2V, COMMAND_EDIT, COMMAND_VIDEO_EDIT, COMMAND_ASK,
    COMMAND_ENCODE, COMMAND_DECODE, COMMAND_RUN, COMMAND_FETCH, COMMAND_CANCEL, COMMAND_STATUS, COMMAND_JOBS, COMMAND_MODELS, COMMAND_LOAD, COMMAND_UNLOAD,
    COMMAND_SHUTDOWN, COMMAND_SHOW, COMMAND_HELP, COMMAND_VERSION, COMMAND_COUNT
};

/* A number that may be absent. */
struct optional_number {
    bool given;
    double value;
};

struct arguments {
    enum command command;
    enum command topic;  /* help: the command it is about; COMMAND_HELP: all of them */
    const char *operand; /* prompt, question, job, model or file, as the command has it; NULL where it has none */
    const char *source;  /* i2v, edit, video-edit, ask, encode: the picture or video to start from; decode: the latents' file */

    const char *endpoint;  /* NULL: environment or default */
    const char *model_dir; /* NULL: none */
    const char *precision; /* of the private daemon; NULL: its default */
    bool json, quiet;
    struct optional_number silence; /* seconds that a daemon which listens may owe an answer */

    const char *output;  /* what makes pictures or videos, fetch: a name for output.h; run: a folder */
    const char *preview; /* a .png that is rewritten while the job runs, or NULL */
    const char *job;     /* the job's id, or NULL */
    bool waits;          /* until there is room, when the queue is full */

    /* Pictures and videos. */
    bool seed_given;
    uint64_t seed;
    struct optional_number steps, guidance, shift, width, height, count, interval_low, interval_high, renorm_min, frames;
    const char *renorm, *noise, *positions; /* or NULL */

    /* Sampling from latents, and in parts. */
    const char *init_latent; /* a file of latents, or NULL */
    struct optional_number denoise, start_step, end_step;
    bool leftover_noise, no_noise;

    /* Sources. */
    const char *resolution; /* a preset's name, or NULL */
    struct optional_number fps;
    bool upright, latent_mean, source_seed_given;
    uint64_t source_seed;

    /* Prompts and answers. */
    const char *negative; /* negative prompt, or NULL */
    const char *system; /* system prompt, or NULL */
    struct optional_number max_tokens, temperature, top_k, top_p, repetition_penalty;

    const char *examples, *task, *root; /* run; the last two may be NULL */

    bool cancel_jobs; /* shutdown */
};

/* Parse the command line (argv[0] is the program's name). Strings are borrowed from argv. An error says what is wrong
 * with it, or with LANCED_ENDPOINT. Not for several threads: it uses getopt. */
int arguments_parse(struct arguments *out, int argc, char **argv, struct error *error);

/* Whether the option (its name without dashes) means something to the command. */
bool arguments_option_is_for(const char *option, enum command command);

#endif
