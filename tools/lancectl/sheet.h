/* sheet.h: `lancectl sheet`: pictures, and the first frames of videos, side by side as one picture. No daemon. */
#ifndef LANCECTL_SHEET_H
#define LANCECTL_SHEET_H

#include "tools/lancectl/arguments.h"
#include "tools/lancectl/exit_codes.h"

/* Cells are squares; a picture that is larger is made smaller, each stands in the middle of its cell. Prints its own
 * errors: EXIT_NOT_READ names the file that is no picture or video, EXIT_NOT_WRITTEN. */
enum exit_code sheet_command(const struct arguments *arguments);

#endif
