/* connections.h: which of the clients' connections are gone, and which came when file descriptors were short.
 *
 * Every connection takes a descriptor, and so do a model's files. When few are left, some are kept back: a new
 * connection is then told so in words, with whatever it asks, and closed at once when not even those descriptors are
 * left. Clients that came earlier notice nothing. Any thread; nothing here waits.
 */
#ifndef LANCE_CONNECTIONS_H
#define LANCE_CONNECTIONS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum { CONNECTIONS_REMEMBERED = 1024 };

/* The last so many of a kind, by nng's number of the pipe. */
struct connection_ring {
    atomic_uint ids[CONNECTIONS_REMEMBERED];
    atomic_uint count;
};

/* Zeroed by its owner. */
struct connections {
    struct connection_ring gone, late;
    atomic_bool is_short_said; /* in the log */
};

/* A client connects; false: hang up on it. */
bool connections_add(struct connections *connections, uint32_t client);

void connections_remove(struct connections *connections, uint32_t client);

bool connections_is_gone(const struct connections *connections, uint32_t client);

/* Connections that have ended so far. */
unsigned connections_ended(const struct connections *connections);

/* Whether a client may ask anything. Errors: ERROR_BUSY, with the limit. */
int connections_admit(const struct connections *connections, uint32_t client, struct error *error);

#endif
