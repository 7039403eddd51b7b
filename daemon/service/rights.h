/* rights.h: who may ask what: of whom a request is, by its token, and what it takes to have it answered.
 *
 * Without tokens everybody who reaches the socket may do everything. With the only token of --token-file everybody must
 * show it, and may do everything. With --tokens each token has its own jobs and sees no others, and only admins may do
 * the rest; the owner of an ipc socket is an admin without a token. Plain functions; any thread.
 */
#ifndef LANCE_RIGHTS_H
#define LANCE_RIGHTS_H

#include <stdbool.h>

#include "base/error.h"
#include "daemon/tokens.h"

struct jobs;

/* Find out who asks: `token` (or NULL) is what the request shows, `is_of_owner` says that it came over an ipc socket
 * from the user whose lanced this is. Errors: ERROR_FORBIDDEN. */
int rights_identify(struct identity *who, struct tokens *tokens, const char *token, bool is_of_owner,
                    struct error *error);

/* Whether somebody may change what others have. Errors: ERROR_FORBIDDEN. */
int rights_check_admin(const struct identity *who, struct error *error);

/* Whose jobs somebody may see; NULL: everybody's. */
const char *rights_owner(const struct identity *who);

/* Whether somebody may touch a job, where the table knows it: one that is another's is as good as unknown. Errors:
 * ERROR_NOT_FOUND. */
int rights_check_job(const struct identity *who, struct jobs *jobs, const char *job, struct error *error);

/* Whether somebody may submit a job under an id, which another's job may have. Errors: ERROR_FORBIDDEN. */
int rights_check_id(const struct identity *who, struct jobs *jobs, const char *job, struct error *error);

/* ERROR_FORBIDDEN: that id is another's. */
int rights_refuse_id(const char *job, struct error *error);

#endif
