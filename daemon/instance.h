/* instance.h: one daemon per ipc socket.
 *
 * A lock file beside the socket (<socket>.lock, flock) belongs to the daemon that lives; the
 * kernel lets go of it however the daemon ends. Who holds the lock may clear away a socket
 * that a crash left behind, unless somebody still answers there.
 */
#ifndef LANCE_INSTANCE_H
#define LANCE_INSTANCE_H

#include "protocol/endpoint.h"

struct instance;

/* Become the daemon of this endpoint (tcp: nothing to do; the kernel keeps ports apart).
 * Errors: ERROR_BUSY (another one lives there), ERROR_IO. */
int instance_open(struct instance **out, const struct endpoint *endpoint, struct error *error);

/* Let go. The socket is the listener's to remove. NULL is allowed. */
void instance_close(struct instance *instance);

#endif
