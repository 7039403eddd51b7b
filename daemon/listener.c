/* listener.c: see listener.h.
 *
 * nng removes the name that it listened at when it stops, whoever has it by then: a daemon that was started in its
 * place, say, after somebody removed the folder. So nng listens at a name that nobody else uses, ".XXXXXXXX" beside
 * the endpoint's, and the socket gets the endpoint's name when it is ready. That name is removed, or given to the
 * next socket, only while it is this one's.
 *
 * On a busy machine nng may take seconds for a connection, and a name that moves for that reason drops connections
 * for nothing. So a door that did not take its probe is judged beside a spare one, which nng opens at a name of its
 * own meanwhile: only when that takes connections which were made later, several in a row, the first one is broken,
 * and the spare one gets its name.
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

enum { SPARE_PROBES = 2 }; /* in a row, one a check, each made after the probe of the door that is judged */

/* One listener of nng, and a connection of our own to it. */
struct door {
    bool is_open;
    nng_listener listener;
    char own_path[ENDPOINT_MAX_BYTES]; /* where nng has it; tcp: "" */
    atomic_int id;                     /* of `listener`, for listener_count_pipe */
    atomic_uint pipes;                 /* connections that nng ever took there */
    int probe_fd;                      /* -1: could not even be connected */
    unsigned pipes_before_probe;
};

struct listener {
    nng_socket socket;
    struct door door;  /* has the endpoint's name */
    struct door spare; /* open while the other one is doubted */
    bool is_probed;
    int spare_taken; /* probes of the spare door so far */
    const struct endpoint *endpoint;
    nng_tls_config *tls; /* NULL: plain */
    dev_t device; /* of the socket that has the endpoint's name, */
    ino_t inode;
    bool name_is_lost; /* and whether the log has said that it has it no more */
    uint64_t hard_limit_bytes;
};

void listener_count_pipe(struct listener *listener, nng_pipe pipe)
{
    const int id = nng_listener_id(nng_pipe_listener(pipe));
    if (id == atomic_load(&listener->door.id))
        atomic_fetch_add(&listener->door.pipes, 1);
    else if (id == atomic_load(&listener->spare.id))
        atomic_fetch_add(&listener->spare.pipes, 1);
}

/* Who has the endpoint's name. */
enum owner { OWNER_NOBODY, OWNER_THIS, OWNER_OTHER };

static enum owner owner_of_name(const struct listener *listener)
{
    struct stat info;
    if (lstat(listener->endpoint->path, &info) != 0)
        return OWNER_NOBODY;
    return listener->door.is_open && info.st_dev == listener->device && info.st_ino == listener->inode ? OWNER_THIS
                                                                                                       : OWNER_OTHER;
}

/* Where nng is to listen: at the endpoint itself (tcp, tls+tcp), or beside it. */
static void own_url(char url[ENDPOINT_MAX_BYTES], const struct endpoint *endpoint)
{
    snprintf(url, ENDPOINT_MAX_BYTES, "%s", endpoint->url);
    char *slash = strrchr(url, '/');
    uint32_t number = 0;
    if (endpoint->path[0] != '\0' && getrandom(&number, sizeof number, 0) == (ssize_t)sizeof number)
        snprintf(slash, (size_t)(url + ENDPOINT_MAX_BYTES - slash), "/.%08" PRIx32, number); /* endpoint_resolve
                                                                                              * saw that it fits */
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
        return error_set(error, ERROR_BUSY, "endpoint %s: is in use, by another lanced or another program",
                         listener->endpoint->url);
    if (result != 0)
        return error_set(error, ERROR_IO, "endpoint %s: %s", listener->endpoint->url, strerror(errno));
    listener->device = info.st_dev;
    listener->inode = info.st_ino;
    return 0;
}

static void hang_up_probe(struct door *door)
{
    if (door->probe_fd >= 0)
        close(door->probe_fd);
    door->probe_fd = -1;
}

/* nng 1.5 never frees a listener that is closed while a connection that it took is open (eight blocks, 4 KB), so that
 * ours goes first. */
static void shut_door(struct door *door)
{
    hang_up_probe(door);
    if (door->is_open)
        nng_listener_close(door->listener);
    door->is_open = false;
    atomic_store(&door->id, 0);
}

/* A spare door that nobody needs any more: the probe hangs up at one check, the door is shut at the next, when nng has
 * seen that. */
static void retire_spare(struct listener *listener)
{
    if (listener->spare.probe_fd >= 0)
        hang_up_probe(&listener->spare);
    else
        shut_door(&listener->spare);
}

/* Have nng listen, beside the endpoint's name. */
static int open_door(struct door *door, const struct listener *listener, struct error *error)
{
    const struct endpoint *endpoint = listener->endpoint;
    char url[ENDPOINT_MAX_BYTES];
    own_url(url, endpoint);
    snprintf(door->own_path, sizeof door->own_path, "%s", endpoint->path[0] != '\0' ? url + strlen("ipc://") : "");
    int result = nng_listener_create(&door->listener, listener->socket, url);
    door->is_open = result == 0;
    if (result == 0)
        result = nng_listener_set_size(door->listener, NNG_OPT_RECVMAXSZ, listener->hard_limit_bytes);
    if (result == 0 && endpoint->path[0] != '\0') /* whatever the folder allows, the socket is the user's */
        result = nng_listener_set_int(door->listener, NNG_OPT_IPC_PERMISSIONS, 0600);
    if (result == 0 && listener->tls)
        result = nng_listener_set_ptr(door->listener, NNG_OPT_TLS_CONFIG, listener->tls);
    if (result == 0)
        result = nng_listener_start(door->listener, 0);
    if (result == 0) {
        atomic_store(&door->pipes, 0);
        atomic_store(&door->id, nng_listener_id(door->listener));
        return 0;
    }
    shut_door(door);
    if (result == NNG_EADDRINUSE)
        return error_set(error, ERROR_BUSY, "endpoint %s: is in use, by another lanced or another program",
                         endpoint->url);
    return error_set(error, ERROR_IO, "endpoint %s: %s", endpoint->url, nng_strerror(result));
}

/* Put the spare door in place of the other. Whoever looks for the name finds one of the two. */
static int replace_door(struct listener *listener, struct error *error)
{
    struct door *door = &listener->door, *spare = &listener->spare;
    if (listener->endpoint->path[0] != '\0' && take_name(listener, spare->own_path, error) != 0) {
        shut_door(spare);
        return error->code;
    }
    shut_door(door);
    door->is_open = true;
    door->listener = spare->listener;
    memcpy(door->own_path, spare->own_path, sizeof door->own_path);
    atomic_store(&door->id, atomic_load(&spare->id));
    spare->is_open = false;
    shut_door(spare);
    listener->is_probed = false;
    return 0;
}

static int start(struct listener *listener, struct error *error)
{
    shut_door(&listener->spare);
    int code = open_door(&listener->spare, listener, error);
    return code != 0 ? code : replace_door(listener, error);
}

static void stop(struct listener *listener)
{
    if (listener->door.is_open && listener->endpoint->path[0] != '\0' && owner_of_name(listener) == OWNER_THIS)
        unlink(listener->endpoint->path);
    shut_door(&listener->door);
    shut_door(&listener->spare);
}

int listener_open(struct listener **out, nng_socket socket, const struct endpoint *endpoint, nng_tls_config *tls,
                  uint64_t hard_limit_bytes, struct error *error)
{
    *out = NULL;
    struct listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return error_set(error, ERROR_NO_MEMORY, "endpoint: out of memory");
    listener->socket = socket;
    listener->endpoint = endpoint;
    listener->tls = tls;
    listener->hard_limit_bytes = hard_limit_bytes;
    listener->door.probe_fd = listener->spare.probe_fd = -1;
    int code = start(listener, error);
    if (code != 0) {
        listener_close(listener);
        return code;
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

/* When the name is somebody else's, or gone, that is said once. A name that is gone is taken again. */
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
        log_error(
            NULL,
            "endpoint %s: the socket of this name is not this lanced's any more (%s), so that nobody new finds it; it "
            "goes on for those that are connected",
            listener->endpoint->url, owner == OWNER_OTHER ? "another program took it" : error.text);
    listener->name_is_lost = true;
    return false;
}

static void probe(struct door *door, const char *path)
{
    hang_up_probe(door);
    door->pipes_before_probe = atomic_load(&door->pipes);
    door->probe_fd = connect_to(path);
}

/* Anybody's connection will do. */
static bool has_taken(const struct door *door)
{
    return atomic_load(&door->pipes) != door->pipes_before_probe;
}

/* The door has not taken its probe: is it broken, or is the machine busy? */
static void doubt_door(struct listener *listener)
{
    struct door *spare = &listener->spare;
    struct error error;
    if (spare->is_open && spare->probe_fd < 0) /* it was to be shut, or could not be connected to */
        shut_door(spare);
    if (!spare->is_open) {
        listener->spare_taken = 0;
        if (open_door(spare, listener, &error) == 0)
            probe(spare, spare->own_path);
        return;
    }
    if (!has_taken(spare))
        return;
    if (++listener->spare_taken < SPARE_PROBES) {
        probe(spare, spare->own_path);
        return;
    }
    log_warning(NULL, "connections were no longer taken (a client hung up while it connected): listening anew");
    if (replace_door(listener, &error) != 0)
        log_error(NULL, "%s; trying again", error.text);
}

bool listener_check(struct listener *listener)
{
    if (listener->endpoint->path[0] == '\0') /* tcp keeps accepting */
        return false;
    if (!has_name(listener))
        return false;
    const bool was_taken = listener->is_probed && has_taken(&listener->door);
    if (listener->is_probed && !was_taken)
        doubt_door(listener);
    else
        retire_spare(listener);
    if (!listener->is_probed || was_taken)
        probe(&listener->door, listener->endpoint->path);
    listener->is_probed = true;
    return was_taken;
}

void listener_close(struct listener *listener)
{
    if (!listener)
        return;
    stop(listener);
    free(listener);
}
