/* apply_command.h: the command line of `lance-quant apply`. */
#ifndef LANCE_QUANT_APPLY_COMMAND_H
#define LANCE_QUANT_APPLY_COMMAND_H

/* Exit status, as of command.h. */
int apply_command(int argc, char **argv);

#endif
