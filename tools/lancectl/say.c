/* say.c: see say.h. */
#include "tools/lancectl/say.h"

#include <stdarg.h>
#include <stdlib.h>

#include "base/utf8.h"

void say(FILE *out, const char *format, ...)
{
    char *text;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0)
        return;
    utf8_print(out, text);
    free(text);
}
