/* program.h: other programs that lancectl runs: where lanced is, and what one says and ends with. */
#ifndef LANCECTL_PROGRAM_H
#define LANCECTL_PROGRAM_H

#include <stddef.h>

/* lanced beside this program; "lanced" (to be looked up in PATH) when there is none. */
void program_find_lanced(char *path, size_t size);

/* Run a program to its end, without standard input, and take what it printed. *out and *errors are malloc'ed texts, the
 * caller's, of at most 1 MB; NULL where there is nothing to tell. Returns its exit status; 128 and the signal that
 * ended it; 127 when it could not be started. */
int program_run(const char *const argv[], char **out, char **errors);

#endif
