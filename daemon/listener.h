/* listener.h: the door of the server's nng socket, and a look now and then whether it still opens.
 *
 * nng 1.5 (Debian 12) takes no connection any more after a client hung up in the middle of the ipc
 * greeting: writing to it fails with EPIPE, nng calls that NNG_ECLOSED, and takes it for its own
 * listener having been closed. Clients that are connected notice nothing, new ones wait for ever.
 * So listener_check, called about once a second, connects to the own socket as a client would, and listens
 * anew when nng does not take that connection while it takes later ones elsewhere, which a machine that is
 * merely busy cannot bring about.
 *
 * What a client sees then: the endpoint's name is always there; connections are dropped, those that were not
 * taken yet too, and the next one is taken. Jobs are not touched: `hello` gives the same `generation`, and
 * what was asked is asked again.
 *
 * One thread opens, checks and closes; nng's threads only count the pipes.
 */
#ifndef LANCE_LISTENER_H
#define LANCE_LISTENER_H

#include <nng/nng.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "protocol/endpoint.h"
#include "protocol/tls.h"

struct listener;

/* Listen at one of the socket's endpoints, which must outlive the listener, as must `tls`, that of a tls+tcp one.
 * Messages beyond `hard_limit_bytes` are dropped by nng with their connection. Errors: ERROR_IO, ERROR_BUSY (address in
 * use). */
int listener_open(struct listener **out, nng_socket socket, const struct endpoint *endpoint, nng_tls_config *tls,
                  uint64_t hard_limit_bytes, struct error *error);

/* nng has taken a connection, maybe at this listener. To be called for each, by nng's threads. */
void listener_count_pipe(struct listener *listener, nng_pipe pipe);

/* Never waits. Whether a connection of our own that nng had taken was ended. */
bool listener_check(struct listener *listener);

/* Stop listening, and remove the socket, where the endpoint's name is still this one's. NULL is allowed. */
void listener_close(struct listener *listener);

#endif
