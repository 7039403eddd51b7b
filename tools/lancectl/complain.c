/* complain.c: see complain.h. */
#include "tools/lancectl/complain.h"

#include <stdio.h>

enum exit_code complain(int error_code, const struct error *error)
{
    fprintf(stderr, "lancectl: %s\n", error->text);
    return exit_code_of_error(error_code);
}
