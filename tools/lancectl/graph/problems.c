/* problems.c: see problems.h. */
#include "tools/lancectl/graph/problems.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/lancectl/say.h"

static void tell(struct problems *problems, const char *format, va_list arguments)
{
    char *text;
    if (problems->count >= PROBLEMS_SHOWN || vasprintf(&text, format, arguments) < 0) {
        problems->count++;
        return;
    }
    for (int i = 0; i < problems->count; i++)
        if (problems->shown[i] && !strcmp(problems->shown[i], text)) {
            free(text);
            return;
        }
    say(stderr, "lancectl: %s\n", text);
    problems->shown[problems->count++] = text;
}

void problem(struct problems *problems, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    problems->is_about_files = false;
    tell(problems, format, arguments);
    va_end(arguments);
}

void problem_file(struct problems *problems, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    problems->is_about_files = problems->count == 0 || problems->is_about_files;
    tell(problems, format, arguments);
    va_end(arguments);
}

void problems_end(struct problems *problems)
{
    for (int i = 0; i < PROBLEMS_SHOWN; i++)
        free(problems->shown[i]);
    memset(problems->shown, 0, sizeof problems->shown);
    if (problems->count > PROBLEMS_SHOWN)
        fprintf(stderr, "lancectl: and %d more\n", problems->count - PROBLEMS_SHOWN);
}
