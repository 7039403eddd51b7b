/* service.h: the requests of PROTOCOL.md as functions: a message goes in, an answer comes out, at once or later.
 *
 * A door (server.c is one) brings messages from somewhere and takes answers back. It owns a `struct call` for each
 * request that is on its way, and knows nothing of what is in it; the service knows nothing of sockets.
 *
 * Requests are parsed and answers encoded without any lock. What is shared lies in the rooms (rooms.h), each behind
 * its own mutex; the service's counters are atomic.
 */
#ifndef LANCE_SERVICE_H
#define LANCE_SERVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/service/call.h"

struct options;
struct rooms;

/* on_shutdown(context, cancel) is called, from any thread, when a client asks the daemon to end. Everything given must
 * outlive the service. Errors: ERROR_NO_MEMORY, ERROR_IO (no thread), those of
 * tokens_open. */
int service_open(struct service **out, const struct options *options, const struct rooms *rooms,
                 void (*on_shutdown)(void *context, bool cancel), void *context, struct error *error);
void service_close(struct service *service); /* when no call is on its way any more; NULL is allowed */

/* The answer for when there is no memory for any other; borrowed. */
const struct blob *service_no_memory_answer(const struct service *service);

/* Make a call ready for use; `park` and `wake` are set already. */
void call_open(struct call *call, struct service *service);

/* Let go of what a finished call holds, its answer too: it is ready for the next request. */
void call_clear(struct call *call);

/* Handle a request, `bytes` bytes as they were received. release(owner) is called when they are not needed any more.
 * Returns whether the call is finished; else it is parked. */
bool service_handle(struct call *call, const void *data, uint64_t bytes, void *owner, void (*release)(void *owner));

/* Go on with a parked call that was woken or whose time is over. Returns whether it is finished; else it is parked
 * again. */
bool service_continue(struct call *call);

/* Answer a call with an error, whatever was asked. */
void service_refuse(struct call *call, const struct error *why);

/* After this nobody wakes the call: for calls that are parked when the door closes. */
void service_forget(struct call *call);

/* Forget blobs that nobody needs. Call now and then. */
void service_sweep(struct service *service);

/* Read the file of --tokens anew, and say in the log what came of it. One thread at a time. */
void service_reread_tokens(struct service *service);

/* Wake the parked calls of a connection that is gone. */
void service_client_gone(struct service *service, uint32_t client);

#endif
