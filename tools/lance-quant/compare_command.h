/* compare_command.h: the command line of `lance-quant compare`. */
#ifndef LANCE_QUANT_COMPARE_COMMAND_H
#define LANCE_QUANT_COMPARE_COMMAND_H

/* Returns the exit status. optind is at the first option. */
int compare_command(int argc, char **argv);

#endif
