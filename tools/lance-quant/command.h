/* command.h: what the commands of lance-quant share: how they end, and what their words mean. */
#ifndef LANCE_QUANT_COMMAND_H
#define LANCE_QUANT_COMMAND_H

#include <stdbool.h>

#include "base/error.h"

enum { EXIT_WRONG_COMMAND_LINE = 2, EXIT_INTERRUPTED = 130 };

/* Print the error; returns the exit status. */
int command_complain(const struct error *error);

/* Print what is wrong with the command line; returns EXIT_WRONG_COMMAND_LINE. */
int command_wrong(const char *what);

/* A whole number from low to high; false for another text. */
bool command_number(const char *text, long low, long high, int *out);

/* Processors, as threads. */
int command_processors(void);

/* How often a signal has asked for the end; command_watch_signals begins it. */
extern volatile int command_interrupted;
void command_watch_signals(void);

#endif
