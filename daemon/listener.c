/* listener.c: see listener.h.
 *
 * nng removes the name that it listened at when it stops, whoever has it by then: a daemon that was started in its place, say,
 * after somebody removed the folder. So nng listens at a name that nobody else uses, ".XXXXXXXX" beside the endpoint's, and the
 * socket gets the endpoint's name when it is ready. That name is removed, or given to the next socket, only while it is this one's.
 */
#include "daemon/listener.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
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
    dev_t device; /* of the socket that has the endpoint's name, */
    ino_t inode;
    bool name_is_lost; /* and whether the log has said that it has it no more */
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

/* Who has the endpoint's name. */
enum owner { OWNER_NOBODY, OWNER_THIS, OWNER_OTHER };

static enum owner owner_of_name(const struct listener *listener)
{
    struct stat info;
    if (lstat(listener->endpoint->path, &info) != 0)
        return OWNER_NOBODY;
    return listener->listening && info.st_dev == listener->device && info.st_ino == listener->inode ? OWNER_THIS : OWNER_OTHER;
}

/* Where nng is to listen: at the endpoint itself (tcp), or beside it. */
static void own_url(char url[ENDPOINT_MAX_BYTES], const struct endpoint *endpoint)
{
    snprintf(url, ENDPOINT_MAX_BYTES, "%s", endpoint->url);
    char *slash = strrchr(url, '/');
    uint32_t number = 0;
    if (endpoint->path[0] != '\0' && getrandom(&number, sizeof number, 0) == (ssize_t)sizeof number)
        snprintf(slash, (size_t)(url + ENDPOINT_MAX_BYTES - slash), "/.%08" PRIx32, number); /* endpoint_resolve saw that it fits */
}

/* Give the socket at `own` the endpoint's name, in place of the one that this listener had there before. */
static int take_name(struct listener *listener, const char *own, struct error *error)
{
    const char *path = listener->endpoint->path;
    struct stat info;
    int result = lstat(own, &info);
    if (result == 0 && owner_of_name(listener) == OWNER_THIS)
        result = rename(own, path);
    else if (result == 0 && (result = link(own, path)) == 0) /* unlike rename, it replaces nobody's */
        unlink(own);
    if (result != 0 && errno == EEXIST)
        return error_set(error, ERROR_BUSY, "endpoint %s: is in use, by another lanced or another program", listener->endpoint->url);
    if (result != 0)
        return error_set(error, ERROR_IO, "endpoint %s: %s", listener->endpoint->url, strerror(errno));
    listener->device = info.st_dev;
    listener->inode = info.st_ino;
    return 0;
}

static int listen_at(nng_listener *out, const struct listener *listener, const char *url, struct error *error)
{
    const struct endpoint *endpoint = listener->endpoint;
    int result = nng_listener_create(out, listener->socket, url);
    bool exists = result == 0;
    if (result == 0)
        result = nng_listener_set_size(*out, NNG_OPT_RECVMAXSZ, listener->hard_limit_bytes);
    if (result == 0 && endpoint->path[0] != '\0') /* whatever the folder allows, the socket is the user's */
        result = nng_listener_set_int(*out, NNG_OPT_IPC_PERMISSIONS, 0600);
    if (result == 0)
        result = nng_listener_start(*out, 0);
    if (result != 0 && exists)
        nng_listener_close(*out);
    if (result == NNG_EADDRINUSE)
        return error_set(error, ERROR_BUSY, "endpoint %s: is in use, by another lanced or another program", endpoint->url);
    if (result != 0)
        return error_set(error, ERROR_IO, "endpoint %s: %s", endpoint->url, nng_strerror(result));
    return 0;
}

/* Listen, in place of the listener before. Whoever looks for the name finds one of the two. */
static int start(struct listener *listener, struct error *error)
{
    char url[ENDPOINT_MAX_BYTES];
    nng_listener fresh;
    own_url(url, listener->endpoint);
    int status = listen_at(&fresh, listener, url, error);
    if (status != 0)
        return status;
    if (listener->endpoint->path[0] != '\0' && (status = take_name(listener, url + strlen("ipc://"), error)) != 0) {
        nng_listener_close(fresh);
        return status;
    }
    if (listener->listening)
        nng_listener_close(listener->listener);
    listener->listener = fresh;
    listener->listening = true;
    return 0;
}

static void stop(struct listener *listener)
{
    if (listener->listening && listener->endpoint->path[0] != '\0' && owner_of_name(listener) == OWNER_THIS)
        unlink(listener->endpoint->path);
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

/* The name is somebody else's, or gone: said once. A name that is gone is taken again. */
static bool has_name(struct listener *listener)
{
    enum owner owner = owner_of_name(listener);
    struct error error = {0};
    if (owner == OWNER_THIS || (owner == OWNER_NOBODY && start(listener, &error) == 0)) {
        if (owner == OWNER_NOBODY)
            log_warning(NULL, "endpoint %s: somebody removed the socket; it is there again", listener->endpoint->url);
        listener->name_is_lost = false;
        return true;
    }
    if (!listener->name_is_lost)
        log_error(NULL, "endpoint %s: the socket of this name is not this lanced's any more (%s), so that nobody new finds it; it "
                  "goes on for those that are connected", listener->endpoint->url,
                  owner == OWNER_OTHER ? "another program took it" : error.text);
    listener->name_is_lost = true;
    return false;
}

void listener_check(struct listener *listener)
{
    if (listener->endpoint->path[0] == '\0') /* tcp keeps accepting */
        return;
    bool had_probe = listener->probe_fd >= 0;
    if (had_probe)
        close(listener->probe_fd);
    listener->probe_fd = -1;
    if (!has_name(listener))
        return;
    if (had_probe && atomic_load(&listener->pipes) == listener->pipes_before_probe) {
        log_warning(NULL, "connections were no longer taken (a client hung up while it connected): listening anew");
        struct error error;
        if (start(listener, &error) != 0)
            log_error(NULL, "%s; trying again", error.text);
    }
    listener->pipes_before_probe = atomic_load(&listener->pipes);
    listener->probe_fd = connect_to(listener->endpoint->path);
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
