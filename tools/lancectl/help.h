/* help.h: what `lancectl help` prints, as a whole or for one command. */
#ifndef LANCECTL_HELP_H
#define LANCECTL_HELP_H

#include <stdio.h>

#include "tools/lancectl/arguments.h"

/* COMMAND_HELP: everything. */
void help_print(FILE *out, enum command topic);

#endif
