/* exit_codes.c: see exit_codes.h. */
#include "tools/lancectl/exit_codes.h"

#include "base/error.h"

enum exit_code exit_code_of_error(int error_code)
{
    switch (error_code) {
    case ERROR_NONE:
        return EXIT_OK;
    case ERROR_IO:
        return EXIT_NO_DAEMON;
    case ERROR_BAD_REQUEST:
    case ERROR_TOO_LARGE:
    case ERROR_NOT_FOUND:
    case ERROR_BUSY:
    case ERROR_UNSUPPORTED:
    case ERROR_FORBIDDEN:
        return EXIT_REFUSED;
    default:
        return EXIT_FAILED;
    }
}
