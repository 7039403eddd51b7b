/* export_command.h: the command line of `lance-quant export`. */
#ifndef LANCE_QUANT_EXPORT_COMMAND_H
#define LANCE_QUANT_EXPORT_COMMAND_H

/* Exit status, as of command.h. */
int export_command(int argc, char **argv);

#endif
