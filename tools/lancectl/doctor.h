/* doctor.h: lancectl doctor: what is installed and missing, what the socket says, what models can do with the memory
 * that is there, and how fast that is. */
#ifndef LANCECTL_DOCTOR_H
#define LANCECTL_DOCTOR_H

#include "tools/lancectl/arguments.h"
#include "tools/lancectl/exit_codes.h"

/* Look at everything and print a line about each; what is wrong decides the exit status (findings.h). */
enum exit_code doctor_command(const struct arguments *arguments);

#endif
