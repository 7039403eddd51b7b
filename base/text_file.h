/* text_file.h: small files of text, read whole. Those that hold secrets only where nobody but their owner can use them,
 * as ssh does with keys. A pipe that nobody has open to write to it is not waited for: it is empty. Plain functions;
 * any thread.
 */
#ifndef LANCE_TEXT_FILE_H
#define LANCE_TEXT_FILE_H

#include <stddef.h>

#include "base/error.h"

/* All of a file of at most `most` bytes, malloc'ed, with a zero behind it. `what` names the file in errors. Errors:
 * ERROR_IO, ERROR_BAD_FILE (it is longer, or no text), ERROR_NO_MEMORY. */
int text_file_read(char **text, const char *path, size_t most, const char *what, struct error *error);

/* The same of a secret: ERROR_IO also where others can use the file. What is no regular file (a pipe) has no mode that
 * says anything. */
int secret_file_read(char **text, const char *path, size_t most, const char *what, struct error *error);

/* The same of a secret that is read again and again: ERROR_BAD_FILE where it is no regular file, which could keep a
 * reader waiting or give its bytes once. */
int kept_secret_file_read(char **text, const char *path, size_t most, const char *what, struct error *error);

#endif
