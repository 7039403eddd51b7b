/* private_daemon.h: a lanced of lancectl's own, for one run with --model.
 *
 * It listens on a socket in a fresh folder of mode 0700 under /tmp, logs into a file there,
 * and lives in a session of its own, so that Ctrl-C on the terminal reaches lancectl only.
 */
#ifndef LANCECTL_PRIVATE_DAEMON_H
#define LANCECTL_PRIVATE_DAEMON_H

#include "base/error.h"
#include "protocol/client.h"

struct private_daemon;

/* Start `lanced --endpoint ... --model model_dir`, with `--precision precision` unless that is NULL, the one
 * beside this program or else the one in PATH, wait until it answers and connect to it, as `connection` says but
 * for the endpoint. The model is loaded by the first job. Errors: ERROR_IO, with the last lines of its log;
 * ERROR_CANCELLED after a signal. */
int private_daemon_start(struct private_daemon **out, struct client **client, const char *model_dir,
                         const char *precision, const struct client_options *connection, struct error *error);

/* Ask it to end, wait for it, and remove its folder. NULL is allowed. `client` is its connection, or NULL. */
void private_daemon_stop(struct private_daemon *daemon, struct client *client);

/* Forget it without ending it: it stays at its endpoint. */
void private_daemon_leave(struct private_daemon *daemon);

#endif
