/* listener.c: see listener.h. */
#include "daemon/listener.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/log.h"

/* How an SP peer introduces itself: zero, "SP", version 0, its protocol (REQ: 0x30), zero. */
static const unsigned char greeting[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};

struct listener {
    nng_socket socket;
    nng_listener listener;
    bool listening;
    const struct endpoint *endpoint;
    uint64_t hard_limit_bytes;
    int probe_fd; /* connected at the last check; -1: none */
    unsigned pipes_before_probe;
    atomic_uint pipes; /* connections that nng ever handed to the socket */
};

static void count_pipe(nng_pipe pipe, nng_pipe_ev event, void *context)
{
    (void)pipe;
    (void)event;
    atomic_fetch_add(&((struct listener *)context)->pipes, 1);
}

static int start(struct listener *listener, struct error *error)
{
    const struct endpoint *endpoint = listener->endpoint;
    int result = nng_listener_create(&listener->listener, listener->socket, endpoint->url);
    listener->listening = result == 0;
    if (result == 0)
        result = nng_listener_set_size(listener->listener, NNG_OPT_RECVMAXSZ, listener->hard_limit_bytes);
    if (result == 0 && endpoint->path[0] != '\0') /* whatever the folder allows, the socket is the user's */
        result = nng_listener_set_int(listener->listener, NNG_OPT_IPC_PERMISSIONS, 0600);
    if (result == 0)
        result = nng_listener_start(listener->listener, 0);
    if (result == NNG_EADDRINUSE)
        return error_set(error, ERROR_BUSY, "endpoint %s: is in use, by another lanced or another program", endpoint->url);
    if (result != 0)
        return error_set(error, ERROR_IO, "endpoint %s: %s", endpoint->url, nng_strerror(result));
    return 0;
}

static void stop(struct listener *listener)
{
    if (listener->listening)
        nng_listener_close(listener->listener);
    listener->listening = false;
}

int listener_open(struct listener **out, nng_socket socket, const struct endpoint *endpoint, uint64_t hard_limit_bytes,
                  struct error *error)
{
    *out = NULL;
    struct listener *listener = calloc(1, sizeof *listener);
    if (listener == NULL)
        return error_set(error, ERROR_NO_MEMORY, "endpoint: out of memory");
    listener->socket = socket;
    listener->endpoint = endpoint;
    listener->hard_limit_bytes = hard_limit_bytes;
    listener->probe_fd = -1;
    nng_pipe_notify(socket, NNG_PIPE_EV_ADD_POST, count_pipe, listener);
    int status = start(listener, error);
    if (status != 0) {
        listener_close(listener);
        return status;
    }
    *out = listener;
    return 0;
}

/* Connect and greet; -1 where that is not possible at once, which for a local socket means that nobody accepts. */
static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path) + 1); /* endpoint_resolve saw that it fits */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        send(fd, greeting, sizeof greeting, MSG_NOSIGNAL) == (ssize_t)sizeof greeting)
        return fd;
    close(fd);
    return -1;
}

void listener_check(struct listener *listener)
{
    if (listener->endpoint->path[0] == '\0') /* tcp keeps accepting */
        return;
    if (listener->probe_fd >= 0) {
        close(listener->probe_fd);
        if (atomic_load(&listener->pipes) == listener->pipes_before_probe) {
            log_warning(NULL, "connections were no longer taken (a client hung up while it connected): listening anew");
            stop(listener);
        }
    }
    struct error error;
    if (!listener->listening && start(listener, &error) != 0) {
        log_error(NULL, "%s; trying again", error.text);
        stop(listener);
    }
    listener->pipes_before_probe = atomic_load(&listener->pipes);
    listener->probe_fd = listener->listening ? connect_to(listener->endpoint->path) : -1;
}

void listener_close(struct listener *listener)
{
    if (listener == NULL)
        return;
    nng_pipe_notify(listener->socket, NNG_PIPE_EV_ADD_POST, NULL, NULL);
    stop(listener);
    if (listener->probe_fd >= 0)
        close(listener->probe_fd);
    free(listener);
}
