/* parameter_options.h: lancectl's options that are parameters of a job.
 *
 * What such an option takes, which commands it is for and what --help says of it comes from the table of parameters
 * (protocol/known_parameters.h); here stands only what it is called. What a number may be is the daemon's
 * business: only its form is checked.
 */
#ifndef LANCECTL_PARAMETER_OPTIONS_H
#define LANCECTL_PARAMETER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/json.h"

struct parameter_option {
    const char *name;      /* without its dashes */
    const char *value;     /* what help calls its value; NULL: it takes none, and says the opposite of the default */
    const char *parameter; /* its name in the protocol; */
    const char *second;    /* two numbers with an x between them: the parameter of the other one. NULL: there is none */
    bool is_of_one_job;    /* means nothing where one command line makes many jobs (run) */
    const char *not_for;   /* a task for which it has no use though the parameter has; or NULL */
    const char *left_out;  /* of the choices, the one that only other clients can make; or NULL */
    const char *help;      /* instead of the parameter's own; or NULL */
};

enum { PARAMETER_OPTIONS = 28 };
extern const struct parameter_option parameter_options[PARAMETER_OPTIONS];

/* What the command line gave for one of them, in the member that the parameter's kind has. Text is borrowed. */
struct given_parameter {
    bool is_given;
    double numbers[2];
    uint64_t whole;
    const char *text;
};

/* The option's place in parameter_options; -1: no such. */
int parameter_option_find(const char *name);

/* Whether it means something to a task of the protocol. */
bool parameter_option_is_for(const struct parameter_option *option, const char *task);

/* Read its value (NULL where it takes none). ERROR_BAD_REQUEST says what is wrong with its form. */
int parameter_option_parse(struct given_parameter *out, const struct parameter_option *option, const char *value,
                           struct error *error);

/* Add what was given to the `params` of a submit, in the table's order. Out of memory: json_is_complete. */
void parameter_options_add(cJSON *params, const struct given_parameter given[PARAMETER_OPTIONS]);

/* Its lines of help; names of other parameters are those of their options. */
void parameter_option_print_help(FILE *out, const struct parameter_option *option);

#endif
