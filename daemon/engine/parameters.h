/* parameters.h: the one table of what a request may say: names, kinds, ranges, defaults, tasks and help.
 *
 * Everything that knows a parameter comes from it: the defaults and checks of the engine (request.c), the reading of a
 * `submit` (daemon/request.c), the answer to `parameters`, protocol/parameters.json for clients that have no daemon to
 * ask, the tables of PROTOCOL.md, and lancectl's options (tools/print-parameters prints these three). A new parameter
 * is a field of struct lance_request and a row here; `make parameters` carries it to the rest. Rules between several
 * parameters are no matter of the table: they stand in request.c.
 *
 * A face of the engine together with lance.h, whose requests it describes. Constant data; any thread.
 */
#ifndef LANCE_PARAMETERS_H
#define LANCE_PARAMETERS_H

#include "base/sha256.h"
#include "daemon/engine/lance.h"

enum parameter_kind {
    PARAMETER_TEXT,    /* const char *, UTF-8 or NULL */
    PARAMETER_INTEGER, /* int */
    PARAMETER_WHOLE,   /* uint64_t: every value of it is accepted */
    PARAMETER_NUMBER,  /* double */
    PARAMETER_FLAG,    /* bool */
    PARAMETER_CHOICE,  /* an enum, as the place of its word in `choices` */
    PARAMETER_LIST     /* double[2] */
};

/* A default, in the member that the kind has. */
struct parameter_value {
    double numbers[2]; /* of a flag 0 or 1, of a choice the enum */
    const char *text;
};

struct parameter {
    const char *name;
    enum parameter_kind kind;
    bool of_source;   /* `offset` counts in struct lance_media, the request's source, not in struct lance_request */
    size_t offset;
    unsigned tasks;   /* bit (1 << task) for every task for which it means something; for the
                       * others it is read and ignored */
    double low, high; /* what is accepted, both included; of a text the most bytes, 0: as many as there are */
    int multiple;     /* of an integer: only multiples of it, or 0 for the default */
    const char *const *choices; /* words, ended by NULL; of a text: those that have a meaning, beside others */
    struct parameter_value value; /* the default, */
    struct {
        unsigned tasks;
        struct parameter_value value;
    } others[2];      /* and of tasks that have another one */
    bool is_open;     /* where it is not given the request has 0 or NULL, and the default depends on other parameters */
    bool is_required;
    bool is_of_parts; /* of sampling from latents or in parts: a receipt tells it only of such a job */
    const char *help; /* one line; names of other parameters in backquotes */
};

/* In the order of the documents; the last has no name. */
extern const struct parameter lance_parameters[];

/* Of that name in a table like lance_parameters; NULL: there is none. */
const struct parameter *parameter_find(const struct parameter *table, const char *name);

static inline bool parameter_is_for(const struct parameter *parameter, enum lance_task task)
{
    return parameter->tasks & 1u << task;
}

/* The default for a task. */
const struct parameter_value *parameter_default(const struct parameter *parameter, enum lance_task task);

/* Where the parameter lies in a request and its source, which may be NULL for those of the request itself. */
static inline const void *parameter_field(const struct parameter *parameter, const struct lance_request *request,
                                          const struct lance_media *source)
{
    return (const char *)(parameter->of_source ? (const void *)source : (const void *)request) + parameter->offset;
}

/* Every parameter of the request its default for the request's task. */
void parameters_set_defaults(struct lance_request *request);

/* Whether the value in the request is within the parameter's range. ERROR_BAD_REQUEST, or ERROR_TOO_LARGE of a text,
 * with the name, the value and what is accepted. Of one for other tasks, or of the source, nothing is said. */
int parameter_check(const struct parameter *parameter, const struct lance_request *request, struct error *error);

/* Add a line "task NAME" and one, "NAME VALUE", for every parameter of the request's task in the order of their names,
 * as PROTOCOL.md has them under "The digest of a job". */
void parameters_hash(struct sha256 *sha, const struct lance_request *request);

#endif
