/* error.c: see error.h. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

static const struct {
    int code;
    const char *name;
} names[] = {
    {ERROR_NONE, "none"},
    {ERROR_BAD_REQUEST, "bad_request"},
    {ERROR_BAD_FILE, "bad_file"},
    {ERROR_TOO_LARGE, "too_large"},
    {ERROR_NO_MEMORY, "no_memory"},
    {ERROR_NOT_FOUND, "not_found"},
    {ERROR_BUSY, "busy"},
    {ERROR_UNSUPPORTED, "unsupported"},
    {ERROR_CANCELLED, "cancelled"},
    {ERROR_IO, "io"},
    {ERROR_INTERNAL, "internal"},
    {ERROR_FORBIDDEN, "forbidden"},
};

int error_set(struct error *error, int code, const char *format, ...)
{
    if (!error)
        return code;
    error->code = code;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    utf8_make_line(error->text);
    return code;
}

int error_prefix(struct error *error, const char *format, ...)
{
    if (!error)
        return ERROR_INTERNAL;
    char before[sizeof error->text];
    memcpy(before, error->text, sizeof before);
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    if (length >= 0 && (size_t)length < sizeof error->text)
        snprintf(error->text + length, sizeof error->text - (size_t)length, ": %s", before);
    utf8_make_line(error->text);
    return error->code;
}

const char *error_name(int code)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].code == code)
            return names[i].name;
    return "internal";
}

int error_code_of(const char *name)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i].name, name))
            return names[i].code;
    return ERROR_INTERNAL;
}
