/* read_number.c: see read_number.h. */
#include "tools/lancectl/read_number.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool read_number(const char *text, double *value, const char **end)
{
    char *after;
    if (!isdigit((unsigned char)*text) && !strchr("+-.", *text))
        return false;
    *value = strtod(text, &after);
    *end = after;
    return after != text && isfinite(*value);
}

int parse_number(double *out, const char *name, const char *text, struct error *error)
{
    const char *end;
    if (read_number(text, out, &end) && !*end)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "--%s: \"%s\" is not a number", name, text);
}

int parse_whole(double *out, const char *name, const char *text, struct error *error)
{
    const char *end;
    if (read_number(text, out, &end) && !*end && *out == floor(*out) && fabs(*out) <= 1e9)
        return 0;
    return error_set(error, ERROR_BAD_REQUEST, "--%s: \"%s\" is not a whole number", name, text);
}
