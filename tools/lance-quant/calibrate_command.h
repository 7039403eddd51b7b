/* calibrate_command.h: the command line of `lance-quant calibrate`. */
#ifndef LANCE_QUANT_CALIBRATE_COMMAND_H
#define LANCE_QUANT_CALIBRATE_COMMAND_H

/* Returns the exit status. optind is at the first option. */
int calibrate_command(int argc, char **argv);

#endif
