/* receipt.h: a finished job's answer to `result`, encoded once and kept: the engine's result as
 * tensors, and the receipt that says how it was made.
 */
#ifndef LANCE_RECEIPT_H
#define LANCE_RECEIPT_H

#include "base/json.h"
#include "daemon/blob.h"
#include "daemon/engine/lance.h"

/* What the receipt tells beside the request and the engine's result. */
struct receipt_facts {
    const char *job;
    const char *backend;
    const char *request; /* its hash (request_digest.h) */
    struct lance_model_info model;
    double queue_seconds;
    double load_seconds; /* negative: the model was there */
    double total_seconds;
    double paused_seconds; /* of these, while others had the device */
    int attempt;          /* at this job, from 1 on; 0: they are not counted */
    bool is_resumed;      /* it went on from a state that an earlier attempt had left, */
    const char *no_state; /* or why it began anew although there was one; NULL or "": there was none */
};

/* Errors: ERROR_NO_MEMORY. Everything given is borrowed. */
int receipt_encode(struct blob **out, const struct lance_request *request, const struct lance_result *result,
                   const struct receipt_facts *facts, struct error *error);

/* The same of a kept result of another job that asked for the same: its answer with these facts, and `cached` in the
 * receipt. Errors: ERROR_NO_MEMORY, ERROR_BAD_FILE (it is no result). */
int receipt_encode_again(struct blob **out, const struct blob *kept, const struct receipt_facts *facts,
                         struct error *error);

/* What a result says in words, malloc'ed; NULL: nothing, or there is no memory. */
char *receipt_result_text(const struct blob *result);

/* A model's info as PROTOCOL.md has it; the caller frees. Incomplete, or NULL: out of memory (json_is_complete). */
cJSON *model_info_json(const struct lance_model_info *info);

/* The names of the tasks in a bit mask: a JSON array, likewise. */
cJSON *task_names_json(unsigned tasks);

#endif
