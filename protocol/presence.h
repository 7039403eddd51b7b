/* presence.h: whether anybody listens at an endpoint, for a client that must tell a daemon
 * that is gone from a silent one.
 *
 * A connection is made, as a client makes one, and the greeting of who answers is returned. A kernel refuses it
 * where no process listens; it takes it, or says that its queue is full, where one does, even one that is stopped or
 * has no time. The connection is kept as long as the question is open: nng 1.5 stops listening when a client hangs
 * up in the middle of the greeting.
 *
 * Used by one thread.
 */
#ifndef LANCE_PRESENCE_H
#define LANCE_PRESENCE_H

#include <stdbool.h>

#include "protocol/endpoint.h"

enum presence_of { PRESENCE_NOBODY, PRESENCE_STRANGER /* speaks another protocol than nng's REP */, PRESENCE_SOMEBODY };

struct presence {
    int fd; /* -1: no connection */
    bool greeted; /* who listens has said that it is a REP */
};

/* How a presence begins. */
#define PRESENCE_NONE ((struct presence){.fd = -1})

/* Who listens there, as far as can be told: PRESENCE_SOMEBODY where it cannot. With PRESENCE_NOBODY, *reason (may be
 * NULL) is the errno of trying. Never waits on ipc, and a second at most on tcp. */
enum presence_of presence_check(struct presence *presence, const struct endpoint *endpoint, int *reason);

/* Hang up, if there is a connection. */
void presence_end(struct presence *presence);

#endif
