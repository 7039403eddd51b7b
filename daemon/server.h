/* server.h: lanced's socket: answers the requests of PROTOCOL.md. */
#ifndef LANCE_SERVER_H
#define LANCE_SERVER_H

#include "daemon/jobs/jobs.h"
#include "daemon/options.h"
#include "daemon/worker.h"

struct server;

/* Listen and answer from now on. on_shutdown(context, cancel) is called, from any thread, when a client asks
 * the daemon to end. Everything given must outlive the server. Errors: ERROR_IO, ERROR_BUSY (address in use). */
int server_open(struct server **out, const struct options *options, struct jobs *jobs, struct worker *worker,
                void (*on_shutdown)(void *context, bool cancel), void *context, struct error *error);

/* To be called about once a second, by the thread that opened the server: see listener.h. */
void server_check(struct server *server);

/* Let answers under way leave, then stop. NULL is allowed. A fault of nng 1.5 (see server_check) can keep this from
 * returning. */
void server_close(struct server *server);

#endif
