/* clip.h: `lancectl clip`: pictures and videos, one after the other, as one video. No daemon. */
#ifndef LANCECTL_CLIP_H
#define LANCECTL_CLIP_H

#include "tools/lancectl/arguments.h"
#include "tools/lancectl/exit_codes.h"

/* All frames have to be of one size. The rate is --fps, else the first video's, else 12. Prints its own errors:
 * EXIT_NOT_READ names a file that cannot be read or is of another size, EXIT_NOT_WRITTEN. */
enum exit_code clip_command(const struct arguments *arguments);

#endif
