/* token.h: what a token may look like, and files that hold one. Plain functions; any thread. */
#ifndef LANCE_TOKEN_H
#define LANCE_TOKEN_H

#include "base/error.h"

enum { TOKEN_MIN_BYTES = 16, TOKEN_MAX_BYTES = 256 };

/* Take the token in the first line of `text`. `what` says where it stands, in errors. Errors: ERROR_BAD_REQUEST. */
int token_read(char token[TOKEN_MAX_BYTES + 1], const char *text, const char *what, struct error *error);

/* The same from a file, which must be its owner's alone (base/text_file.h). `what` is the option or the variable that
 * names it. Errors also: those of secret_file_read. */
int token_read_file(char token[TOKEN_MAX_BYTES + 1], const char *path, const char *what, struct error *error);

#endif
