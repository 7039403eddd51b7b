/* command.c: see command.h. */
#include "tools/lance-quant/command.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/parallel.h"

volatile int command_interrupted;

static void on_signal(int signal)
{
    (void)signal;
    command_interrupted = command_interrupted + 1;
}

void command_watch_signals(void)
{
    signal(SIGXFSZ, SIG_IGN); /* a limit on the size of files is an error like a full disk */
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
}

int command_complain(const struct error *error)
{
    fprintf(stderr, "lance-quant: %s\n", error->text);
    return error->code == ERROR_CANCELLED ? EXIT_INTERRUPTED : EXIT_FAILURE;
}

int command_wrong(const char *what)
{
    fprintf(stderr, "lance-quant: %s; lance-quant help explains it\n", what);
    return EXIT_WRONG_COMMAND_LINE;
}

bool command_number(const char *text, long low, long high, int *out)
{
    char *end;
    const long number = strtol(text, &end, 10);
    *out = (int)number;
    return end != text && *end == '\0' && number >= low && number <= high;
}

int command_processors(void)
{
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : online > PARALLEL_MOST_THREADS ? PARALLEL_MOST_THREADS : (int)online;
}
