/* client.c: see client.h.
 *
 * One nng REQ socket with a context for each request that may be on its way at the same time. The caller's thread
 * begins every operation and sleeps on a condition; nng's threads wake it when one is over (on_finished) or when the
 * connection comes or goes (on_pipe). nng itself sends unanswered requests again after a lost connection is back.
 */
#include "protocol/client.h"

#include <errno.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/util/platform.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "protocol/endpoint.h"
#include "protocol/presence.h"
#include "protocol/tls.h"
#include "protocol/token.h"

enum {
    GONE_MS = 3000,            /* how long nobody may listen */
    SILENCE_SECONDS = 60,      /* how long who listens may owe an answer, by default */
    SECOND_OPINION_MS = 5000,  /* how long a hello on another connection may take */
    LONGEST_MS = 1800000,      /* for one answer of a daemon that lives */
    LONGEST_LOAD_MS = 1800000, /* a large checkpoint from a slow disk */
    TICK_MS = 100,
    MOST_HANG_UPS = 8,         /* of a daemon, during one request that nng sends again each time */
    FOLLOW_POLL_MS = 250,
    RESEND_MS = 24 * 3600 * 1000 /* nng's own resend of unanswered requests: never; a lost connection resends at once */
};

/* One request on its way. */
struct call {
    struct client *client;
    nng_ctx ctx;
    bool ctx_is_open;
    nng_aio *aio;
    enum { CALL_FREE, CALL_SENDING, CALL_RECEIVING } state; /* what nng has the aio for */
    uint64_t tag;
    bool finished; /* that operation is over; guarded by the client's lock */
};

/* A connection with TLS that is being made. */
struct handshake {
    struct client *client;
    nng_dialer dialer;
    int result; /* nng's, once it is over */
};

/* One wait for answers. */
struct patience {
    uint64_t began_ms; /* when an answer was due: after the time that the request itself asked for */
    uint64_t until_ms;
    uint64_t told_seconds; /* of silence, to on_silence */
    unsigned ended_connections; /* before */
};

struct client {
    struct endpoint endpoint;
    char *name;
    char *token;
    char *ca;
    nng_tls_config *tls; /* NULL: plain */
    nng_socket socket;
    bool socket_is_open;
    struct call calls[CLIENT_IN_FLIGHT];
    struct patience patience;     /* with all of them: it begins anew with every answer */
    struct message *refusal;      /* the last answer that was an error, or NULL */
    struct message *hello;        /* NULL: not heard yet */
    uint64_t message_limit_bytes; /* of the daemon; 0: not known yet */
    uint64_t silence_ms;
    client_silence *on_silence; /* or NULL */
    void *context;
    struct presence presence; /* who listens, while there is no connection */

    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t changed;
    bool is_connected;
    bool handshake_is_over;
    bool pipe_has_ended;        /* of the newest one */
    unsigned ended_connections; /* since the start */
    uint64_t disconnected_since_ms;
};

static void on_finished(void *argument)
{
    struct call *call = argument;
    struct client *client = call->client;
    pthread_mutex_lock(&client->lock);
    call->finished = true;
    pthread_cond_signal(&client->changed);
    pthread_mutex_unlock(&client->lock);
}

/* One pipe at a time: nng dials again when the one before is gone. Of each it tells the beginning (ADD_PRE) first, but
 * that it is in use (ADD_POST) and its end (REM_POST) from two threads: of one that ends soon the end may be told
 * before. Of one that it rejects it tells no ADD_POST. */
static void on_pipe(nng_pipe pipe, nng_pipe_ev event, void *argument)
{
    (void)pipe;
    struct client *client = argument;
    pthread_mutex_lock(&client->lock);
    if (event == NNG_PIPE_EV_ADD_PRE) {
        client->pipe_has_ended = false;
    } else if (event == NNG_PIPE_EV_ADD_POST) {
        client->is_connected = !client->pipe_has_ended;
        client->ended_connections += client->pipe_has_ended;
    } else {
        client->pipe_has_ended = true;
        if (client->is_connected) {
            client->is_connected = false;
            client->ended_connections++;
            client->disconnected_since_ms = clock_ms();
        }
    }
    pthread_cond_signal(&client->changed);
    pthread_mutex_unlock(&client->lock);
}

/* Be patient anew, with an answer that may take `asked_ms` by its request. */
static void start_patience(struct client *client, uint64_t asked_ms)
{
    const uint64_t due_ms = clock_ms() + asked_ms;
    pthread_mutex_lock(&client->lock);
    client->patience = (struct patience){
        .began_ms = due_ms, .until_ms = due_ms + client->silence_ms, .ended_connections = client->ended_connections};
    pthread_mutex_unlock(&client->lock);
}

/* Whether the daemon of our hello answers another one, on a connection of its own: our answer is then only late, or
 * large. */
static bool is_alive(struct client *client)
{
    struct client *other;
    struct error unused;
    const struct client_options options = {.endpoint = client->endpoint.url,
                                           .token = client->token,
                                           .ca = client->ca,
                                           .name = client->name,
                                           .silence_ms = SECOND_OPINION_MS};
    const char *before = client->hello ? json_text(client_hello(client), "generation") : NULL;
    if (!before || client_open(&other, &options, &unused) != 0)
        return false;
    const char *now = json_text(client_hello(other), "generation");
    bool same = now && strcmp(before, now) == 0;
    client_close(other);
    return same;
}

static int give_up(const struct client *client, struct error *error, const char *why)
{
    return error_set(error, ERROR_IO, "lanced at %s: %s", client->endpoint.url, why);
}

/* Whether to wait no longer, by the rule of PROTOCOL.md, "When a daemon is gone". Called without the lock. */
static int check_patience(struct client *client, struct error *error)
{
    struct patience *patience = &client->patience;
    const uint64_t now = clock_ms();
    pthread_mutex_lock(&client->lock);
    const bool is_cut_off = !client->is_connected;
    const uint64_t cut_off_ms = is_cut_off ? now - client->disconnected_since_ms : 0;
    const unsigned hang_ups = client->ended_connections - patience->ended_connections;
    pthread_mutex_unlock(&client->lock);
    if (hang_ups >= MOST_HANG_UPS)
        return give_up(client, error,
                       "it hangs up whenever it gets this request; perhaps it has no memory for one so large");
    if (!is_cut_off)
        presence_end(&client->presence);
    else if (!client->hello || cut_off_ms >= GONE_MS) {
        enum presence_of who = presence_check(&client->presence, &client->endpoint, NULL);
        if (who == PRESENCE_STRANGER)
            return give_up(client, error, "who listens there is no lanced");
        if (who == PRESENCE_NOBODY && cut_off_ms >= GONE_MS)
            return give_up(client, error, "the daemon went away: nobody has listened there for 3 seconds");
    }
    if (now < patience->began_ms)
        return 0;
    const uint64_t silent_seconds = (now - patience->began_ms) / 1000;
    if (client->on_silence && silent_seconds > patience->told_seconds) {
        patience->told_seconds = silent_seconds;
        if (client->on_silence(client->context, (int)silent_seconds))
            return give_up(client, error, "was given up while it did not answer");
    }
    if (now < patience->until_ms)
        return 0;
    if (now - patience->began_ms < LONGEST_MS && is_alive(client)) {
        patience->until_ms = clock_ms() + client->silence_ms;
        return 0;
    }
    presence_end(&client->presence); /* nng may not have noticed the end of its connection: look anew */
    if (presence_check(&client->presence, &client->endpoint, NULL) == PRESENCE_NOBODY)
        return give_up(client, error, "the daemon went away: nobody listens there any more");
    char why[120];
    snprintf(why, sizeof why, "somebody listens there, but has not answered for %llu seconds; is it stopped?",
             (unsigned long long)silent_seconds);
    return give_up(client, error, why);
}

/* Take note that the operation of a call is over. */
static bool take_finished(struct call *call)
{
    pthread_mutex_lock(&call->client->lock);
    const bool finished = call->finished;
    call->finished = false;
    pthread_mutex_unlock(&call->client->lock);
    return finished;
}

static bool is_any_finished(const struct client *client)
{
    if (client->handshake_is_over)
        return true;
    for (int i = 0; i < CLIENT_IN_FLIGHT; i++)
        if (client->calls[i].finished)
            return true;
    return false;
}

/* Sleep until an operation or a handshake is over, or a tick. */
static void wait_a_tick(struct client *client)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += TICK_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&client->lock);
    int woken = 0;
    while (!is_any_finished(client) && woken == 0)
        woken = pthread_cond_timedwait(&client->changed, &client->lock, &until);
    pthread_mutex_unlock(&client->lock);
}

static void release_msg(void *msg)
{
    nng_msg_free(msg);
}

/* The answer that a call has received, as a message. */
static int read_answer(struct call *call, struct message **answer, struct error *error)
{
    nng_msg *msg = nng_aio_get_msg(call->aio);
    call->state = CALL_FREE;
    int code = message_parse(answer, nng_msg_body(msg), nng_msg_len(msg), 0, error);
    if (code != 0) {
        nng_msg_free(msg);
        return error_prefix(error, "answer of lanced at %s", call->client->endpoint.url);
    }
    message_adopt(*answer, msg, release_msg);
    return 0;
}

/* Go on with a call whose operation is over. *answer stays NULL where that was not the last one. */
static int go_on(struct call *call, struct message **answer, struct error *error)
{
    const int result = nng_aio_result(call->aio);
    if (result != 0) {
        if (call->state == CALL_SENDING)
            nng_msg_free(nng_aio_get_msg(call->aio));
        call->state = CALL_FREE;
        return give_up(call->client, error, nng_strerror(result));
    }
    if (call->state == CALL_RECEIVING)
        return read_answer(call, answer, error);
    call->state = CALL_RECEIVING;
    nng_ctx_recv(call->ctx, call->aio);
    return 0;
}

/* Forget a call: its answer is not wanted any more. */
static void abandon(struct call *call)
{
    if (call->state == CALL_FREE)
        return;
    nng_aio_cancel(call->aio); /* on_finished follows */
    nng_aio_wait(call->aio);
    take_finished(call);
    if ((call->state == CALL_SENDING) ==
        (nng_aio_result(call->aio) != 0)) /* not sent, or received at the last moment */
        nng_msg_free(nng_aio_get_msg(call->aio));
    call->state = CALL_FREE; /* the next request of its context ends one that was sent */
}

/* What the daemon said: 0, or its error. */
static int check_answer(struct client *client, const struct message *answer, struct error *error)
{
    const cJSON *envelope = message_envelope(answer);
    const cJSON *protocol = cJSON_GetObjectItemCaseSensitive(envelope, "protocol");
    if (!cJSON_IsNumber(protocol) || protocol->valuedouble != PROTOCOL_VERSION) {
        const char *version = json_text(envelope, "version");
        char number[32] = "none";
        if (cJSON_IsNumber(protocol))
            snprintf(number, sizeof number, "%g", protocol->valuedouble);
        return error_set(error, ERROR_UNSUPPORTED,
                         "lanced%s%s at %s speaks protocol %s, %s speaks %d; install both from the same release",
                         version ? " " : "", version ? version : "", client->endpoint.url, number,
                         client->name, PROTOCOL_VERSION);
    }
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(envelope, "ok")))
        return 0;
    const cJSON *failure = cJSON_GetObjectItemCaseSensitive(envelope, "error");
    const char *code = json_text(failure, "code"), *text = json_text(failure, "message");
    return error_set(error, code ? error_code_of(code) : ERROR_INTERNAL, "%s",
                     text ? text : "lanced failed without saying why");
}

/* How long the daemon may take because the request says so. */
static uint64_t asked_ms_of(const char *request, const cJSON *fields)
{
    uint64_t asked_ms;
    if (json_uint64(cJSON_GetObjectItemCaseSensitive(fields, "timeout_ms"), &asked_ms))
        return asked_ms;
    return strcmp(request, "load") == 0 ? LONGEST_LOAD_MS : 0;
}

/* The message of a request. */
static int encode_request(nng_msg **out, struct client *client, const char *request, const cJSON *fields,
                          const struct tensor_view *tensors, size_t tensor_count, struct error *error)
{
    cJSON *envelope = fields ? cJSON_Duplicate(fields, true) : json_object();
    json_add_number(envelope, "protocol", PROTOCOL_VERSION);
    json_add_text(envelope, "request", request);
    if (strcmp(request, "submit") == 0)
        json_add_text(envelope, "client", client->name); /* so that a list of jobs says whose it is */
    if (client->token)
        json_add_text(envelope, "token", client->token);
    void *data;
    uint64_t bytes;
    int code = message_encode(&data, &bytes, envelope, tensors, tensor_count, error);
    cJSON_Delete(envelope);
    if (code != 0)
        return code;
    if (client->message_limit_bytes != 0 && bytes > client->message_limit_bytes) {
        free(data);
        return error_set(error, ERROR_TOO_LARGE, "%s: the message has %llu bytes; lanced at %s accepts %llu", request,
                         (unsigned long long)bytes, client->endpoint.url,
                         (unsigned long long)client->message_limit_bytes);
    }
    if (nng_msg_alloc(out, bytes) != 0) {
        free(data);
        return error_set(error, ERROR_NO_MEMORY, "%s: out of memory for a message of %llu bytes", request,
                         (unsigned long long)bytes);
    }
    memcpy(nng_msg_body(*out), data, bytes);
    free(data);
    return 0;
}

int client_in_flight(const struct client *client)
{
    int count = 0;
    for (int i = 0; i < CLIENT_IN_FLIGHT; i++)
        count += client->calls[i].state != CALL_FREE;
    return count;
}

int client_begin(struct client *client, const char *request, const cJSON *fields, const struct tensor_view *tensors,
                 size_t tensor_count, uint64_t tag, struct error *error)
{
    struct call *call = client->calls;
    while (call->state != CALL_FREE)
        if (++call == client->calls + CLIENT_IN_FLIGHT)
            return error_set(error, ERROR_INTERNAL, "%s: %d requests are on their way already", request,
                             CLIENT_IN_FLIGHT);
    nng_msg *msg;
    int code = encode_request(&msg, client, request, fields, tensors, tensor_count, error);
    if (code != 0)
        return code;
    if (client_in_flight(client) == 0)
        start_patience(client, asked_ms_of(request, fields));
    call->tag = tag;
    call->state = CALL_SENDING;
    nng_aio_set_msg(call->aio, msg);
    nng_ctx_send(call->ctx, call->aio);
    return 0;
}

/* The message that the first call with an answer has received, unchecked; NULL when there is none yet. */
static int receive(struct client *client, uint64_t *tag, struct message **answer, struct error *error)
{
    int code = 0;
    wait_a_tick(client);
    for (int i = 0; i < CLIENT_IN_FLIGHT && code == 0 && !*answer; i++) {
        struct call *call = &client->calls[i];
        if (call->state != CALL_FREE && take_finished(call)) {
            *tag = call->tag;
            code = go_on(call, answer, error);
        }
    }
    if (code == 0 && !*answer)
        code = check_patience(client, error);
    else if (code == 0)
        start_patience(client, 0);
    return code;
}

int client_next(struct client *client, uint64_t *tag, struct message **answer, struct error *error)
{
    struct message *received = NULL;
    *answer = NULL;
    message_close(client->refusal);
    client->refusal = NULL;
    int code = receive(client, tag, &received, error);
    if (code != 0) {
        client_abandon(client);
        return code;
    }
    if (!received)
        return 0;
    code = check_answer(client, received, error);
    if (code == 0)
        *answer = received;
    else
        client->refusal = received;
    return code;
}

void client_abandon(struct client *client)
{
    for (int i = 0; i < CLIENT_IN_FLIGHT; i++)
        abandon(&client->calls[i]);
}

const cJSON *client_refusal(const struct client *client)
{
    return client->refusal ? message_envelope(client->refusal) : NULL;
}

int client_request(struct client *client, const char *request, const cJSON *fields, const struct tensor_view *tensors,
                   size_t tensor_count, struct message **answer, struct error *error)
{
    struct message *received = NULL;
    uint64_t tag;
    int code = client_begin(client, request, fields, tensors, tensor_count, 0, error);
    while (code == 0 && !received)
        code = client_next(client, &tag, &received, error);
    if (answer)
        *answer = received;
    else
        message_close(received);
    return code;
}

/* A request of fields that were just made, and that are deleted here. */
static int request_of(struct client *client, const char *request, cJSON *fields, struct message **answer,
                      struct error *error)
{
    int code = json_is_complete(fields) ? client_request(client, request, fields, NULL, 0, answer, error)
                                        : error_set(error, ERROR_NO_MEMORY, "%s: out of memory", request);
    cJSON_Delete(fields);
    return code;
}

int client_job_request(struct client *client, const char *request, const char *job, struct message **answer,
                       struct error *error)
{
    cJSON *fields = json_object();
    json_add_text(fields, "job", job);
    return request_of(client, request, fields, answer, error);
}

static int say_hello(struct client *client, struct message **answer, struct error *error)
{
    cJSON *fields = json_object();
    json_add_text(fields, "client", client->name);
    return request_of(client, "hello", fields, answer, error);
}

/* A thread of its own: nng waits for as long as who listens keeps silent. */
static void *shake_hands(void *argument)
{
    struct handshake *handshake = argument;
    struct client *client = handshake->client;
    const int result = nng_dialer_start(handshake->dialer, 0);
    pthread_mutex_lock(&client->lock);
    handshake->result = result;
    client->handshake_is_over = true;
    pthread_cond_signal(&client->changed);
    pthread_mutex_unlock(&client->lock);
    return NULL;
}

static bool take_handshake(struct client *client)
{
    pthread_mutex_lock(&client->lock);
    const bool is_over = client->handshake_is_over;
    client->handshake_is_over = false;
    pthread_mutex_unlock(&client->lock);
    return is_over;
}

/* As patiently as for an answer. */
static int wait_for_handshake(struct handshake *handshake, struct error *error)
{
    struct client *client = handshake->client;
    pthread_t thread;
    if (pthread_create(&thread, NULL, shake_hands, handshake) != 0)
        return error_set(error, ERROR_NO_MEMORY, "client: cannot start a thread");
    int code = 0;
    start_patience(client, 0);
    while (code == 0 && !take_handshake(client)) {
        wait_a_tick(client);
        code = check_patience(client, error);
    }
    if (code != 0)
        nng_dialer_close(handshake->dialer);
    pthread_join(thread, NULL);
    take_handshake(client);
    return code;
}

/* Connect with TLS, and return when it is known whom to: nng would try for ever where the daemon's certificate is not
 * trusted. */
static int dial_tls(struct client *client, struct error *error)
{
    struct handshake handshake = {.client = client};
    int result = nng_dialer_create(&handshake.dialer, client->socket, client->endpoint.url);
    if (result == 0)
        result = nng_dialer_set_ptr(handshake.dialer, NNG_OPT_TLS_CONFIG, client->tls);
    if (result == 0) {
        int code = wait_for_handshake(&handshake, error);
        if (code != 0)
            return code;
        result = handshake.result;
    }
    if (result == NNG_EPEERAUTH || result == NNG_ECRYPTO)
        return error_set(error, ERROR_FORBIDDEN,
                         "lanced at %s is not trusted: its certificate is not of the CA in %s, or not for this host, "
                         "or has expired (%s)",
                         client->endpoint.url, client->ca, nng_strerror(result));
    return result == 0 ? 0 : give_up(client, error, nng_strerror(result));
}

/* Begin to connect, once somebody listens; gives up after `timeout_ms` in which nobody does, and at once with 0. */
static int dial(struct client *client, int timeout_ms, struct error *error)
{
    const uint64_t deadline = clock_ms() + (uint64_t)timeout_ms;
    int reason = 0;
    enum presence_of who;
    while ((who = presence_check(&client->presence, &client->endpoint, &reason)) == PRESENCE_NOBODY) {
        if (clock_ms() >= deadline)
            return error_set(error, ERROR_IO, "no lanced answers at %s (%s); start one with: lanced --model DIR",
                             client->endpoint.url, strerror(reason));
        nng_msleep(TICK_MS);
    }
    client->disconnected_since_ms = clock_ms();
    if (client->tls)
        return dial_tls(client, error);
    int result = nng_dial(client->socket, client->endpoint.url, NULL, NNG_FLAG_NONBLOCK);
    return result == 0 ? 0 : give_up(client, error, nng_strerror(result));
}

/* LANCED_SILENCE_SECONDS, else a minute. */
static uint64_t default_silence_ms(void)
{
    const char *text = getenv("LANCED_SILENCE_SECONDS");
    char *end;
    unsigned long seconds = text ? strtoul(text, &end, 10) : 0;
    bool is_one = text && text[0] >= '0' && text[0] <= '9' && *end == '\0' && seconds >= 1 && seconds <= 86400;
    return (is_one ? seconds : SILENCE_SECONDS) * UINT64_C(1000);
}

static char *copy_or_null(const char *text)
{
    return text && text[0] != '\0' ? strdup(text) : NULL;
}

static int open_call(struct call *call, struct client *client)
{
    call->client = client;
    int result = nng_ctx_open(&call->ctx, client->socket);
    call->ctx_is_open = result == 0;
    return result == 0 ? nng_aio_alloc(&call->aio, on_finished, call) : result;
}

static void close_call(struct call *call)
{
    if (call->aio) {
        abandon(call);
        nng_aio_stop(call->aio);
        nng_aio_free(call->aio);
    }
    if (call->ctx_is_open)
        nng_ctx_close(call->ctx);
}

static int open_socket(struct client *client, struct error *error)
{
    int result = nng_req0_open(&client->socket);
    client->socket_is_open = result == 0;
    if (result == 0)
        result = nng_socket_set_ms(client->socket, NNG_OPT_REQ_RESENDTIME, RESEND_MS);
    for (int i = 0; i < CLIENT_IN_FLIGHT && result == 0; i++) /* contexts take the socket's options as they are now */
        result = open_call(&client->calls[i], client);
    if (result == 0)
        result = nng_socket_set_ms(client->socket, NNG_OPT_RECONNMINT, TICK_MS);
    if (result == 0) /* results may be larger than anything the daemon accepts */
        result = nng_socket_set_size(client->socket, NNG_OPT_RECVMAXSZ, 0);
    if (result == 0)
        result = nng_pipe_notify(client->socket, NNG_PIPE_EV_ADD_PRE, on_pipe, client);
    if (result == 0)
        result = nng_pipe_notify(client->socket, NNG_PIPE_EV_ADD_POST, on_pipe, client);
    if (result == 0)
        result = nng_pipe_notify(client->socket, NNG_PIPE_EV_REM_POST, on_pipe, client);
    if (result != 0)
        return error_set(error, ERROR_IO, "client: cannot open a socket: %s", nng_strerror(result));
    return 0;
}

/* What was given, else what the environment names. */
static int take_token(struct client *client, const char *given, struct error *error)
{
    char token[TOKEN_MAX_BYTES + 1];
    const char *file = getenv("LANCED_TOKEN_FILE");
    client->token = copy_or_null(given ? given : getenv("LANCED_TOKEN"));
    if (client->token || given || !file || file[0] == '\0')
        return 0;
    int code = token_read_file(token, file, "LANCED_TOKEN_FILE", error);
    if (code == 0)
        client->token = strdup(token);
    return code;
}

/* By which the daemon tells clients apart. */
static const char *name_of(const struct client_options *options)
{
    const char *own = getenv("LANCED_CLIENT");
    if (own && own[0] != '\0' && utf8_is_valid(own, strlen(own)))
        return own;
    return options->name ? options->name : "lanced client " LANCED_VERSION;
}

int client_open(struct client **out, const struct client_options *options, struct error *error)
{
    *out = NULL;
    struct client *client = calloc(1, sizeof *client);
    if (!client)
        return error_set(error, ERROR_NO_MEMORY, "client: out of memory");
    pthread_mutex_init(&client->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&client->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    client->presence = PRESENCE_NONE;
    client->silence_ms = options->silence_ms > 0 ? (uint64_t)options->silence_ms : default_silence_ms();
    client->on_silence = options->on_silence;
    client->context = options->context;
    client->name = strdup(name_of(options));
    client->ca = copy_or_null(options->ca ? options->ca : getenv("LANCED_CA"));
    int code = client->name ? 0 : error_set(error, ERROR_NO_MEMORY, "client: out of memory");
    if (code == 0)
        code = take_token(client, options->token, error);
    if (code == 0)
        code = endpoint_resolve(&client->endpoint, options->endpoint, error);
    if (code == 0)
        code = endpoint_trust(&client->endpoint, error);
    if (code == 0 && client->endpoint.is_tls)
        code = tls_open_client(&client->tls, client->ca, &client->endpoint, error);
    if (code == 0)
        code = open_socket(client, error);
    if (code == 0)
        code = dial(client, options->connect_timeout_ms, error);
    if (code == 0)
        code = say_hello(client, &client->hello, error);
    if (code != 0) {
        client_close(client);
        return code;
    }
    presence_end(&client->presence);
    const cJSON *limits = cJSON_GetObjectItemCaseSensitive(client_hello(client), "limits");
    json_uint64(cJSON_GetObjectItemCaseSensitive(limits, "message_bytes"), &client->message_limit_bytes);
    *out = client;
    return 0;
}

void client_close(struct client *client)
{
    if (!client)
        return;
    for (int i = 0; i < CLIENT_IN_FLIGHT; i++)
        close_call(&client->calls[i]);
    if (client->socket_is_open)
        nng_close(client->socket);
    presence_end(&client->presence);
    message_close(client->refusal);
    message_close(client->hello);
    pthread_cond_destroy(&client->changed);
    pthread_mutex_destroy(&client->lock);
    free(client->name);
    if (client->tls)
        nng_tls_config_free(client->tls);
    free(client->token);
    free(client->ca);
    free(client);
}

const cJSON *client_hello(const struct client *client)
{
    return message_envelope(client->hello);
}

const char *client_endpoint(const struct client *client)
{
    return client->endpoint.url;
}

/* A job is unknown: is it because this is not the daemon it was sent to? */
static int explain_lost_job(struct client *client, struct error *error)
{
    struct message *answer;
    struct error unused;
    if (say_hello(client, &answer, &unused) != 0)
        return ERROR_NOT_FOUND;
    const char *then = json_text(client_hello(client), "generation");
    const char *now = json_text(message_envelope(answer), "generation");
    if (then && now && strcmp(then, now) != 0)
        error_set(error, ERROR_NOT_FOUND, "lanced at %s was restarted and the job is lost; submit it again",
                  client->endpoint.url);
    message_close(answer);
    return ERROR_NOT_FOUND;
}

static int wait_for_events(struct client *client, const char *job, uint64_t after, struct message **answer,
                           struct error *error)
{
    cJSON *fields = json_object();
    json_add_text(fields, "job", job);
    json_add_number(fields, "after", (double)after);
    json_add_number(fields, "timeout_ms", FOLLOW_POLL_MS);
    int code = request_of(client, "wait", fields, answer, error);
    return code == ERROR_NOT_FOUND ? explain_lost_job(client, error) : code;
}

/* Whether the event ends its job; *status is then what the job came to. */
static bool ends_job(const cJSON *event, int *status, struct error *error)
{
    const char *name = json_text(event, "event");
    if (!name)
        return false;
    if (strcmp(name, "done") == 0) {
        *status = 0;
        return true;
    }
    if (strcmp(name, "cancelled") == 0) {
        *status = error_set(error, ERROR_CANCELLED, "cancelled");
        return true;
    }
    if (strcmp(name, "failed") == 0) {
        const char *code = json_text(event, "code"), *text = json_text(event, "message");
        *status = error_set(error, code ? error_code_of(code) : ERROR_INTERNAL, "%s",
                            text ? text : "the job failed without saying why");
        return true;
    }
    return false;
}

int client_follow(struct client *client, const char *job, client_event *on_event, void *context, struct error *error)
{
    uint64_t after = 0;
    bool cancel_sent = false;
    for (;;) {
        struct message *answer;
        int code = wait_for_events(client, job, after, &answer, error);
        if (code != 0)
            return code;
        bool cancel = false, ended = false;
        const cJSON *events = cJSON_GetObjectItemCaseSensitive(message_envelope(answer), "events"), *event;
        if (cJSON_GetArraySize(events) == 0)
            cancel = on_event(context, NULL, NULL);
        cJSON_ArrayForEach(event, events)
        {
            json_uint64(cJSON_GetObjectItemCaseSensitive(event, "sequence"), &after);
            char name[40];
            snprintf(name, sizeof name, "preview.%llu", (unsigned long long)after);
            cancel = on_event(context, event, message_tensor(answer, name)) || cancel;
            ended = ends_job(event, &code, error) || ended;
        }
        message_close(answer);
        if (ended)
            return code;
        if (cancel && !cancel_sent) {
            code = client_job_request(client, "cancel", job, NULL, error);
            if (code != 0)
                return code;
            cancel_sent = true;
        }
    }
}
