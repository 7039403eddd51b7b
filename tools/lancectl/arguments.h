/* arguments.h: lancectl's command line, parsed and checked. Options that were not given are not sent, so the daemon's
 * defaults apply.
 */
#ifndef LANCECTL_ARGUMENTS_H
#define LANCECTL_ARGUMENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "tools/lancectl/parameter_options.h"

enum command {
    COMMAND_T2I, COMMAND_T2V, COMMAND_I2V, COMMAND_EDIT, COMMAND_VIDEO_EDIT, COMMAND_ASK,
    COMMAND_ENCODE, COMMAND_DECODE, COMMAND_RUN, COMMAND_GRAPH, COMMAND_GRAPHS, COMMAND_SHEET, COMMAND_CLIP,
        COMMAND_CA,
        COMMAND_FETCH, COMMAND_CANCEL, COMMAND_STATUS, COMMAND_TOP, COMMAND_JOBS, COMMAND_HISTORY, COMMAND_METRICS,
        COMMAND_MODELS,
        COMMAND_LOAD, COMMAND_UNLOAD,
    COMMAND_SHUTDOWN, COMMAND_DOCTOR, COMMAND_SHOW, COMMAND_HELP, COMMAND_VERSION, COMMAND_COUNT
};

enum { MAX_SETTINGS = 256, SHEET_MOST_COLUMNS = 256, SHEET_LEAST_CELL = 16, SHEET_MOST_CELL = 1024 /* pixels */,
       AUTHORITY_MOST_DAYS = 36500 };

struct arguments {
    enum command command;
    enum command topic;  /* help: the command it is about; COMMAND_HELP: all of them */
    const char *operand; /* prompt, question, job, model or file, as the command has it; NULL where it has none */
    const char *source;  /* i2v, edit, video-edit, ask, encode: the picture or video to start from;
                          * decode: the latents' file; graph: the workflow */

    const char *endpoint;  /* NULL: environment or default */
    const char *ca;        /* of a tls+tcp endpoint; NULL: environment */
    const char *model_dir; /* NULL: none */
    const char *precision; /* of the private daemon; NULL: its default */
    bool json, quiet;
    bool once; /* top: one look */
    double silence; /* seconds that a daemon which listens may owe an answer; 0: the default */

    const char *output;  /* what makes pictures or videos, fetch: a name for output.h; run, graph: a folder */
    const char *preview; /* a .png that is rewritten while the job runs, or NULL */
    const char *job;     /* the job's id, or NULL */
    bool no_cache;       /* it is made, whatever the daemon has kept */
    bool waits;          /* until there is room, when the queue is full */

    struct given_parameter given[PARAMETER_OPTIONS]; /* the parameters of the job, in the order of parameter_options */

    const char *init_latent; /* a file of latents, or NULL */
    double fps;              /* of the source, instead of its own; 0: not given */
    bool upright;            /* pictures are turned as their EXIF asks */

    char *const *files; /* sheet, clip: what is put together, in this order; ca: hosts */
    int file_count;
    int columns, cell;  /* sheet; 0: not given */

    const char *examples, *task, *root; /* run; the last two may be NULL */

    const char *set[MAX_SETTINGS], *input_dir; /* graph: NODE.INPUT=VALUE; the folder of files that it names, or NULL */
    int sets;
    bool dry_run;

    int days; /* ca: that certificates are good for; 0: not given */

    bool cancel_jobs; /* shutdown */

    double since;       /* history: seconds since 1970, or 0; also `task` */
    const char *prompt; /* a part of it, or NULL */
    bool failed;        /* those that failed alone */
};

/* Parse the command line (argv[0] is the program's name). Strings are borrowed from argv. An error says what is wrong
 * with it, or with LANCED_ENDPOINT. Not for several threads: it uses getopt. */
int arguments_parse(struct arguments *out, int argc, char **argv, struct error *error);

/* Whether the option (its name without dashes) means something to the command. */
bool arguments_option_is_for(const char *option, enum command command);

/* What was given for an option of parameter_options.h; NULL: nothing. */
const struct given_parameter *arguments_given(const struct arguments *arguments, const char *option);

#endif
