/* known_parameters.h: what a client in C knows of the parameters of `submit` without a daemon to ask:
 * protocol/parameters.json as a table. `make parameters` writes known_parameters.c from the engine's own table.
 *
 * Constant data; any thread.
 */
#ifndef LANCE_KNOWN_PARAMETERS_H
#define LANCE_KNOWN_PARAMETERS_H

#include <stddef.h>

enum known_kind {
    KNOWN_TEXT, KNOWN_INTEGER, KNOWN_WHOLE, KNOWN_NUMBER, KNOWN_FLAG, KNOWN_CHOICE,
    KNOWN_LIST /* of two numbers */
};

struct known_parameter {
    const char *name;
    enum known_kind kind;
    const char *tasks;          /* those for which it means something, each followed by a space */
    const char *const *choices; /* words, ended by NULL; or NULL */
    const char *accepted;       /* in words, such as "1 to 1000"; "" where everything is */
    const char *usual;          /* the default, with those of single tasks; "" where there is none */
    const char *help;           /* one line */
};

extern const struct known_parameter known_parameters[]; /* the last has no name */

/* NULL: there is none of that name. */
const struct known_parameter *known_parameter_find(const char *name);

#endif
