/* log.c: see log.h. */
#include "daemon/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "protocol/utf8.h"

static const char *const level_names[] = {"error", "warning", "info", "debug"};
static enum log_level highest = LOG_LEVEL_INFO;

void log_set_level(enum log_level level)
{
    highest = level;
}

int log_level_of(const char *name)
{
    for (int i = 0; i < (int)(sizeof level_names / sizeof level_names[0]); i++)
        if (strcmp(name, level_names[i]) == 0)
            return i;
    return -1;
}

void log_line(enum log_level level, const char *job, const char *format, ...)
{
    if (level > highest)
        return;
    char line[1200];
    size_t size = sizeof line - 1; /* room for the newline */
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t at = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &utc);
    at += (size_t)snprintf(line + at, size - at, ".%03ldZ %-7s ", now.tv_nsec / 1000000, level_names[level]);
    if (job != NULL)
        at += (size_t)snprintf(line + at, size - at, "job %s: ", job);
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line + at, size - at, format, arguments);
    va_end(arguments);
    if (length < 0)
        line[at] = '\0';
    utf8_make_line(line);
    size_t end = strlen(line);
    line[end] = '\n';
    /* One write per line keeps lines of different threads apart. Nothing can be done when it fails. */
    if (write(STDERR_FILENO, line, end + 1) < 0)
        return;
}
