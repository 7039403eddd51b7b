/* options.h: the command line of lanced. */
#ifndef LANCE_OPTIONS_H
#define LANCE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "daemon/jobs/limits.h"
#include "daemon/journal/limits.h"
#include "daemon/offered_models.h"
#include "kernels/backend.h"
#include "protocol/endpoint.h"
#include "protocol/token.h"

enum { OPTIONS_MAX_MODEL_FOLDERS = 32, OPTIONS_MAX_ENDPOINTS = 4 };

struct options {
    struct model_choice models[OFFERED_MAX_MODELS]; /* the first one is the default */
    int model_count;
    struct error odd_model;          /* the last one that was left out or lacks files, and why */
    const char *model_folders[OPTIONS_MAX_MODEL_FOLDERS]; /* whose checkpoints are among the models */
    int model_folder_count;
    bool list_models;                /* write their names instead of serving */
    const char *vae_path, *vit_path; /* for every model; NULL: in or beside its directory */
    bool byte_head;                  /* their heads in 8 bits a weight */
    struct endpoint endpoints[OPTIONS_MAX_ENDPOINTS]; /* at all of which it answers; one at least */
    int endpoint_count;
    char token[TOKEN_MAX_BYTES + 1]; /* that everybody must show; "": none */
    const char *tokens_path;         /* the file of named tokens, in its place; or NULL */
    const char *certificate, *key;   /* files, for tls+tcp endpoints; else NULL */
    struct backend_options backend;
    uint64_t blob_bytes;             /* of payloads that no job has yet */
    uint64_t memory_limit_bytes;     /* of jobs, beside the weights; 0: machine_memory.h says */
    uint64_t prefix_cache_bytes;
    struct jobs_limits jobs;
    const char *state_folder;        /* where jobs outlive the daemon; NULL: nowhere */
    bool check;                      /* look through it, or without one at the machine, instead of serving */
    struct journal_limits journal;
    double save_seconds;             /* a job's state is kept when so long has passed since the last time, */
    int save_steps;                  /* and after every so many steps; 0: not for that reason */
    double idle_unload_seconds;      /* 0: never */
    int models_resident;             /* in memory at once, at most */
    const char *calibrate_file;      /* statistics of the model's inputs (calibration.h); NULL: none */
    double calibrate_seconds;        /* it is written every so many */
    bool lazy;                       /* load the default model at the first job instead of at start */
    bool cancel_on_term;
    bool until_eof;                  /* end when standard input closes */
    int log_level;
    bool log_json;
};

/* What the caller does next. */
enum options_action { OPTIONS_RUN, OPTIONS_EXIT };

/* Read the command line (and LANCED_TOKEN). --help and --version print to stdout and ask for OPTIONS_EXIT.
 * Strings belong to argv; the paths that --models found live as long as the process.
 * Errors: ERROR_BAD_REQUEST, ERROR_BAD_FILE (a folder that is not there), ERROR_NO_MEMORY. */
int options_read(struct options *out, enum options_action *action, int argc, char **argv, struct error *error);

#endif
