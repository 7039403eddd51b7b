/* tokens.h: who may ask: the tokens that this lanced knows, whose they are, and which of them may do everything.
 *
 * Secrets are not kept, only their SHA-256; one that is given is compared with all of them, in a time that does not
 * tell which is near. Any thread may find; one reads anew.
 */
#ifndef LANCE_TOKENS_H
#define LANCE_TOKENS_H

#include <stdbool.h>

#include "base/error.h"

enum { TOKEN_NAME_MAX_BYTES = 40, TOKENS_MOST = 1024, TOKENS_FILE_MAX_BYTES = 1 << 20 };

struct tokens;

/* Who asks. */
struct identity {
    char name[TOKEN_NAME_MAX_BYTES + 1]; /* of the token; "": the owner of the socket, or there are no tokens */
    bool is_admin;
};

/* Either the tokens of a file, or the only one there is, without a name and an admin's; or none (both NULL).
 *
 * Each line of the file is `NAME SECRET` or `NAME SECRET admin`; names are [A-Za-z0-9._-]{1,40}, secrets as token.h has
 * them and without spaces; empty lines, and those that begin with '#', mean nothing. It must be its owner's alone.
 * Errors: those of secret_file_read, ERROR_BAD_FILE with the line, ERROR_NO_MEMORY. */
int tokens_open(struct tokens **out, const char *path, const char *only, struct error *error);
void tokens_close(struct tokens *tokens); /* NULL is allowed */

/* Read the file anew. On an error those of before stay. */
int tokens_reread(struct tokens *tokens, struct error *error);

bool tokens_are_named(const struct tokens *tokens); /* they come from a file */
bool tokens_are_asked_for(const struct tokens *tokens);

/* Whose token this is. Any text may be given. */
bool tokens_find(struct tokens *tokens, const char *given, struct identity *who);

#endif
