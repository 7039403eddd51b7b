/* server.c: see server.h.
 *
 * Threads: nng's own threads, and the parking's (parking.h), run everything here; none ever waits for a client.
 * The socket is one nng REP socket with CONTEXTS contexts, each with a call of the service (service.h). Each is a
 * little state machine:
 *
 *     RECEIVING  nng has its aio. A request came: the service answers it (-> SENDING) or parks it
 *     parked     nng has nothing of it, until the service is to go on with it. Then: answer
 *     SENDING    nng has its aio. The answer left, or its client is gone: -> RECEIVING
 *
 * No aio ever has a timeout or is cancelled: see parking.h.
 *
 * The thread that runs a context's callback owns the context, until it starts the next
 * operation; after that another thread may already be in the next callback. That is why
 * park() is called under the lock of the list the waiter is put on: whoever wants to wake it
 * has to take that lock first, and by then it is parked.
 *
 * When a connection goes, its parked contexts are woken (on_pipe_gone).
 */
#include "daemon/server.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/supplemental/util/platform.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/connections.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/options.h"
#include "daemon/parking.h"
#include "daemon/unread.h"

enum {
    CONTEXTS = CALLS_MOST_PARKED + 64, /* some are free for requests that answer at once */
    HARD_CAP_FACTOR = 2, /* what is larger than this many times the limit nng drops, with the connection */
    NNG_HEADER_BYTES = 64, /* nng counts its own headers too */
    STUCK_CHECKS = 10,   /* at which a connection of our own was ended */
    FLUSH_MS = 100       /* nng has no way to ask whether the last answers have left */
};

enum state { RECEIVING, SENDING }; /* what nng has the aio for */

struct context {
    struct call call;
    struct parked parked;
    struct server *server;
    nng_ctx ctx;
    nng_aio *aio;
    enum state state;
};

struct server {
    struct service *service;
    _Atomic(nng_msg *) no_memory_msg; /* the service's answer for want of memory, ready to be sent; NULL: was sent */
    nng_socket socket;
    nng_tls_config *tls; /* NULL: plain */
    _Atomic(struct listener *) listeners[OPTIONS_MAX_ENDPOINTS]; /* those that are open */
    struct parking *parking;
    struct context *contexts;
    int context_count;
    struct unread *unread;
    atomic_bool closing; /* callbacks do nothing any more */
    struct connections connections;
    unsigned gone_at_last_check;
    int checks_without_end; /* of any connection, though one of our own was ended, in a row */
};

/* --- Sending and receiving --------------------------------------------------------------- */

static void receive(struct context *context)
{
    context->state = RECEIVING;
    nng_ctx_recv(context->ctx, context->aio);
}

static nng_msg *copy_to_msg(const void *data, uint64_t bytes)
{
    nng_msg *msg;
    if (nng_msg_alloc(&msg, bytes) != 0)
        return NULL;
    memcpy(nng_msg_body(msg), data, bytes);
    return msg;
}

/* Have the answer for want of memory ready, unless it is. */
static void ready_no_memory_msg(struct server *server)
{
    if (atomic_load(&server->no_memory_msg))
        return;
    const struct blob *answer = service_no_memory_answer(server->service);
    nng_msg *none = NULL, *msg = copy_to_msg(answer->data, answer->bytes);
    if (msg && !atomic_compare_exchange_strong(&server->no_memory_msg, &none, msg))
        nng_msg_free(msg);
}

static int slot_of(const struct context *context)
{
    return (int)(context - context->server->contexts);
}

static void end_sending(struct context *context);

/* Copy and send an answer that unread.h has noted. */
static void send_noted(struct context *context)
{
    nng_msg *msg = copy_to_msg(context->call.answer->data, context->call.answer->bytes);
    if (!msg) {
        log_error(NULL, "no memory for an answer of %llu bytes", (unsigned long long)context->call.answer->bytes);
        call_clear(&context->call);
        msg = atomic_exchange(&context->server->no_memory_msg, NULL);
    } else {
        call_clear(&context->call);
        ready_no_memory_msg(context->server);
    }
    if (!msg) { /* the client asks again, or gives up */
        end_sending(context);
        return;
    }
    context->state = SENDING;
    nng_aio_set_msg(context->aio, msg);
    nng_ctx_send(context->ctx, context->aio);
}

/* The answer was read, or is not to be had: one that waited for that is sent, and the next request received. */
static void end_sending(struct context *context)
{
    struct server *server = context->server;
    int next = unread_end(server->unread, slot_of(context));
    receive(context);
    if (next >= 0)
        send_noted(&server->contexts[next]);
}

/* Send what the service answered, or leave it in the call until end_sending comes for it. */
static void send_answer(struct context *context)
{
    const struct blob *answer = context->call.answer;
    enum unread_verdict verdict = UNREAD_DROP;
    if (answer)
        verdict = unread_begin(context->server->unread, slot_of(context), context->call.waiter.client, answer->bytes);
    switch (verdict) {
    case UNREAD_SEND: send_noted(context); break;
    case UNREAD_WAIT: break; /* another thread may be at it already */
    case UNREAD_DROP:
        call_clear(&context->call);
        receive(context);
        break;
    }
}

/* --- Parking ----------------------------------------------------------------------------- */

static struct context *context_of(struct call *call)
{
    return (struct context *)((char *)call - offsetof(struct context, call));
}

/* A connection may end before its request is parked: on_pipe_gone remembers it first, then looks through the parked
 * ones. */
static void park(struct call *call)
{
    struct context *context = context_of(call);
    if (connections_is_gone(&context->server->connections, call->waiter.client))
        call->waiter.client_gone = true;
    parking_add(context->server->parking, &context->parked, call->waiter.client_gone ? 0 : call->until);
}

static void wake(struct call *call)
{
    struct context *context = context_of(call);
    parking_end(context->server->parking, &context->parked);
}

/* The parked time is over, or there is news. */
static void continue_parked(struct parked *parked)
{
    struct context *context = (struct context *)((char *)parked - offsetof(struct context, parked));
    if (service_continue(&context->call))
        send_answer(context);
}

/* --- One message ------------------------------------------------------------------------------ */

static void free_msg(void *msg)
{
    nng_msg_free(msg);
}

/* Whether the other end of a connection is a process of the user whose lanced this is, or root's. Only ipc tells. */
static bool is_of_owner(nng_pipe pipe)
{
    uint64_t user;
    return nng_pipe_get_uint64(pipe, NNG_OPT_IPC_PEER_UID, &user) == 0 && (user == getuid() || user == 0);
}

static void on_request(struct context *context, nng_msg *msg)
{
    struct call *call = &context->call;
    struct error error;
    call->waiter.client = (uint32_t)nng_pipe_id(nng_msg_get_pipe(msg));
    call->waiter.client_gone = false;
    call->is_of_owner = is_of_owner(nng_msg_get_pipe(msg));
    if (connections_admit(&context->server->connections, call->waiter.client, &error) != 0) {
        nng_msg_free(msg);
        service_refuse(call, &error);
        send_answer(context);
    } else if (service_handle(call, nng_msg_body(msg), nng_msg_len(msg), msg, free_msg))
        send_answer(context);
}

static void on_new_pipe(nng_pipe pipe, nng_pipe_ev event, void *argument)
{
    (void)event;
    struct server *server = argument;
    if (!connections_add(&server->connections, (uint32_t)nng_pipe_id(pipe)))
        nng_pipe_close(pipe);
}

/* What came before a listener is among those that are open does not count, which none misses: each compares with what
 * it had before a probe of its own. */
static void on_pipe_taken(nng_pipe pipe, nng_pipe_ev event, void *argument)
{
    (void)event;
    struct server *server = argument;
    for (int i = 0; i < OPTIONS_MAX_ENDPOINTS; i++) {
        struct listener *listener = atomic_load(&server->listeners[i]);
        if (listener)
            listener_count_pipe(listener, pipe);
    }
}

static void on_pipe_gone(nng_pipe pipe, nng_pipe_ev event, void *argument)
{
    (void)event;
    struct server *server = argument;
    uint32_t client = (uint32_t)nng_pipe_id(pipe);
    connections_remove(&server->connections, client);
    service_client_gone(server->service, client);
}

static void on_aio(void *argument)
{
    struct context *context = argument;
    int result = nng_aio_result(context->aio);
    if (atomic_load(&context->server->closing)) {
        nng_msg_free(nng_aio_get_msg(context->aio)); /* NULL, received, or not sent */
        nng_aio_set_msg(context->aio, NULL);
        return;
    }
    switch (context->state) {
    case RECEIVING:
        if (result == NNG_ECLOSED)
            break;
        nng_msg *msg = result == 0 ? nng_aio_get_msg(context->aio) : NULL;
        nng_aio_set_msg(context->aio, NULL);
        if (msg)
            on_request(context, msg);
        else /* with a result of 0, too: see parking.h */
            receive(context);
        break;
    case SENDING:
        if (result != 0)
            nng_msg_free(nng_aio_get_msg(context->aio));
        nng_aio_set_msg(context->aio, NULL);
        end_sending(context);
        break;
    }
}

/* --- Life ------------------------------------------------------------------------------------ */

static int open_contexts(struct server *server)
{
    for (int i = 0; i < CONTEXTS; i++) {
        struct context *context = &server->contexts[i];
        context->server = server;
        context->call.park = park;
        context->call.wake = wake;
        call_open(&context->call, server->service);
        int result = nng_aio_alloc(&context->aio, on_aio, context);
        if (result != 0)
            return result;
        server->context_count++;
        result = nng_ctx_open(&context->ctx, server->socket);
        if (result != 0)
            return result;
    }
    return 0;
}

static int open_listeners(struct server *server, const struct options *options, struct error *error)
{
    const uint64_t hard_limit_bytes = MESSAGE_LIMIT_BYTES * HARD_CAP_FACTOR + NNG_HEADER_BYTES;
    int code = options->certificate
                     ? tls_open_server(&server->tls, options->certificate, options->key, error)
                     : 0;
    for (int i = 0; code == 0 && i < options->endpoint_count; i++) {
        const struct endpoint *endpoint = &options->endpoints[i];
        struct listener *listener;
        code = listener_open(&listener, server->socket, endpoint, endpoint->is_tls ? server->tls : NULL,
                             hard_limit_bytes, error);
        if (code == 0)
            atomic_store(&server->listeners[i], listener);
    }
    return code;
}

int server_open(struct server **out, const struct options *options, struct service *service, struct error *error)
{
    *out = NULL;
    struct server *server = calloc(1, sizeof *server);
    if (!server)
        return error_set(error, ERROR_NO_MEMORY, "server: out of memory");
    server->service = service;
    server->contexts = calloc(CONTEXTS, sizeof *server->contexts);
    server->unread = unread_open(CONTEXTS);
    if (!server->contexts || !server->unread) {
        free(server->contexts);
        unread_close(server->unread);
        free(server);
        return error_set(error, ERROR_NO_MEMORY, "server: out of memory");
    }
    int code = parking_open(&server->parking, continue_parked, error);
    if (code != 0) {
        server_close(server);
        return code;
    }
    int result = nng_rep0_open(&server->socket);
    if (result == 0)
        result = nng_pipe_notify(server->socket, NNG_PIPE_EV_ADD_PRE, on_new_pipe, server);
    if (result == 0)
        result = nng_pipe_notify(server->socket, NNG_PIPE_EV_ADD_POST, on_pipe_taken, server);
    if (result == 0)
        result = nng_pipe_notify(server->socket, NNG_PIPE_EV_REM_POST, on_pipe_gone, server);
    if (result == 0)
        result = open_contexts(server);
    if (result != 0)
        code = error_set(error, ERROR_IO, "server: cannot open its socket: %s", nng_strerror(result));
    if (code == 0)
        code = open_listeners(server, options, error);
    if (code != 0) {
        server_close(server);
        return code;
    }
    ready_no_memory_msg(server); /* before the first answer, which may lack memory */
    for (int i = 0; i < CONTEXTS; i++)
        receive(&server->contexts[i]);
    *out = server;
    return 0;
}

void server_check(struct server *server)
{
    bool ended_one = false;
    for (int i = 0; i < OPTIONS_MAX_ENDPOINTS; i++) {
        struct listener *listener = atomic_load(&server->listeners[i]);
        if (listener && listener_check(listener))
            ended_one = true;
    }
    /* nng 1.5 never finishes an ended connection, nor any after it, when it was closed between two reads of one
     * message: it takes a client that sends several requests at once and hangs up without reading. Service goes on, but
     * every connection that ends keeps its file descriptor. */
    unsigned gone = connections_ended(&server->connections);
    server->checks_without_end = gone != server->gone_at_last_check ? 0 : server->checks_without_end + ended_one;
    server->gone_at_last_check = gone;
    if (ended_one && server->checks_without_end == STUCK_CHECKS)
        log_warning(
            NULL,
            "ended connections are not cleaned up any more (a fault of nng 1.5 that a client set off by hanging up "
            "in the middle of a request); restart lanced when convenient");
}

void server_close(struct server *server)
{
    if (!server)
        return;
    for (int i = 0; i < 100 && unread_count(server->unread) > 0; i++)
        nng_msleep(10);
    if (server->context_count > 0)
        nng_msleep(FLUSH_MS);
    atomic_store(&server->closing, true);
    nng_pipe_notify(server->socket, NNG_PIPE_EV_ADD_POST, NULL, NULL); /* nothing counts at one that is closed */
    for (int i = 0; i < OPTIONS_MAX_ENDPOINTS; i++)
        listener_close(atomic_load(&server->listeners[i]));
    nng_close(server->socket);
    if (server->parking)
        parking_stop(server->parking);
    for (int i = 0; i < server->context_count; i++)
        nng_aio_stop(server->contexts[i].aio); /* its callback has ended when this returns */
    for (int i = 0; i < server->context_count; i++) {
        struct context *context = &server->contexts[i];
        service_forget(&context->call);
        nng_aio_free(context->aio);
        call_clear(&context->call);
    }
    if (server->tls)
        nng_tls_config_free(server->tls);
    parking_close(server->parking);
    free(server->contexts);
    unread_close(server->unread);
    nng_msg_free(atomic_load(&server->no_memory_msg));
    free(server);
}
