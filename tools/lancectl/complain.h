/* complain.h: error messages to the user. */
#ifndef LANCECTL_COMPLAIN_H
#define LANCECTL_COMPLAIN_H

#include "base/error.h"
#include "tools/lancectl/exit_codes.h"

/* Print "lancectl: TEXT" to stderr; returns the exit code that belongs to the error code. */
enum exit_code complain(int error_code, const struct error *error);

#endif
