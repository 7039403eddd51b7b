/* endpoint.h: where a daemon listens and clients look for it.
 *
 * An endpoint is an nng URL: ipc:///path/to/socket, tcp://127.0.0.1:port, or tls+tcp://host:port. Without one,
 * both sides take LANCED_ENDPOINT from the environment, else lanced.ipc in
 * $XDG_RUNTIME_DIR/lanced, else (no such directory) in /tmp/lanced-<uid>. The default folder
 * belongs to the user alone (mode 0700); one that others could have prepared is refused, by both sides.
 */
#ifndef LANCE_ENDPOINT_H
#define LANCE_ENDPOINT_H

#include <stdbool.h>

#include "base/error.h"

enum {
    ENDPOINT_MAX_BYTES = 128,
    ENDPOINT_OWN_NAME_BYTES = 10 /* "/.XXXXXXXX", beside the socket: see daemon/listener.c */
};

struct endpoint {
    char url[ENDPOINT_MAX_BYTES];  /* for nng */
    char path[ENDPOINT_MAX_BYTES]; /* ipc: the socket's path; else "" */
    bool is_tls;
};

/* Fill `out` from `given` (NULL: environment or default). A tcp host must be loopback, one of tls+tcp may be
 * any.
 * Creates nothing. Errors: ERROR_BAD_REQUEST, ERROR_UNSUPPORTED (tcp beyond loopback). */
int endpoint_resolve(struct endpoint *out, const char *given, struct error *error);

/* The host of a tcp or tls+tcp endpoint, without the brackets of an IPv6 address, and its port. */
void endpoint_split(const struct endpoint *endpoint, char host[ENDPOINT_MAX_BYTES], char port[ENDPOINT_MAX_BYTES]);

/* Whether a client may send anything there: the folder of the default ipc endpoint, where there is one, is of this
 * user alone. Who made it could answer as a daemon, and would learn tokens, prompts and pictures. Errors:
 * ERROR_UNSUPPORTED. */
int endpoint_trust(const struct endpoint *endpoint, struct error *error);

/* Make the folder of the default ipc endpoint (0700), or check the owner and mode of the one
 * that is there; the folder of a path the user chose must merely exist. Does nothing for others.
 * Errors: ERROR_IO. */
int endpoint_prepare(const struct endpoint *endpoint, struct error *error);

#endif
