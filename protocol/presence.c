/* presence.c: see presence.h. */
#include "protocol/presence.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* How an SP peer introduces itself: zero, "SP", version 0, its protocol (REQ: 0x30; a REP answers with 0x31), zero. */
static const unsigned char greeting[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0}, reply[8] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};

enum { CONNECT_MS = 1000 };

/* Returns the descriptor, or -1 with errno. One that is still connecting after CONNECT_MS counts as
 * connected: nobody refused. */
static int connect_to(const struct sockaddr *address, socklen_t length)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, address, length) == 0)
        return fd;
    int reason = errno;
    if (reason == EINPROGRESS) { /* tcp */
        struct pollfd connected = {.fd = fd, .events = POLLOUT};
        socklen_t size = sizeof reason;
        poll(&connected, 1, CONNECT_MS);
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &reason, &size) == 0 && reason == 0)
            return fd;
    }
    close(fd);
    errno = reason;
    return -1;
}

static int connect_to_path(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path) + 1); /* endpoint_resolve saw that it fits */
    return connect_to((const struct sockaddr *)&address, sizeof address);
}

static int connect_to_port(const struct endpoint *endpoint)
{
    char name[ENDPOINT_MAX_BYTES], port[ENDPOINT_MAX_BYTES];
    endpoint_split(endpoint, name, port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
    if (getaddrinfo(name, port, &hints, &found) != 0) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    int fd = -1;
    for (const struct addrinfo *one = found; one && fd < 0; one = one->ai_next)
        fd = connect_to(one->ai_addr, one->ai_addrlen);
    int reason = errno;
    freeaddrinfo(found);
    errno = reason;
    return fd;
}

/* What the connection says by now. */
static enum presence_of look(struct presence *presence)
{
    unsigned char said[sizeof reply];
    ssize_t length = recv(presence->fd, said, sizeof said, MSG_DONTWAIT | MSG_PEEK);
    if (!presence->greeted && length == (ssize_t)sizeof reply && memcmp(said, reply, sizeof reply) == 0) {
        presence->greeted = true;
        (void)!send(presence->fd, greeting, sizeof greeting, MSG_NOSIGNAL);
        (void)!recv(presence->fd, said, sizeof said, MSG_DONTWAIT); /* so that an end behind it is seen */
        length = recv(presence->fd, said, sizeof said, MSG_DONTWAIT | MSG_PEEK);
    }
    if (length > 0) /* a REP says nothing to who does not ask */
        return !presence->greeted && memcmp(said, reply, (size_t)length) == 0 ? PRESENCE_SOMEBODY : PRESENCE_STRANGER;
    return length < 0 && (errno == EAGAIN || errno == EINTR) ? PRESENCE_SOMEBODY : PRESENCE_NOBODY;
}

/* Whether an error of connecting leaves open that somebody is there: a full queue, or what
 * this process lacks itself. */
static bool says_nothing(int reason)
{
    return reason == EAGAIN || reason == EINTR || reason == EMFILE || reason == ENFILE || reason == ENOMEM ||
           reason == ENOBUFS;
}

enum presence_of presence_check(struct presence *presence, const struct endpoint *endpoint, int *reason)
{
    if (presence->fd >= 0) {
        enum presence_of who = look(presence);
        if (who != PRESENCE_NOBODY)
            return endpoint->is_tls ? PRESENCE_SOMEBODY : who; /* who is behind the encryption nng finds out */
        presence_end(presence); /* hung up; perhaps the next one does not */
    }
    presence->greeted = false;
    presence->fd = endpoint->path[0] != '\0' ? connect_to_path(endpoint->path) : connect_to_port(endpoint);
    if (presence->fd >= 0)
        return PRESENCE_SOMEBODY;
    if (reason)
        *reason = errno;
    return says_nothing(errno) ? PRESENCE_SOMEBODY : PRESENCE_NOBODY;
}

void presence_end(struct presence *presence)
{
    if (presence->fd >= 0)
        close(presence->fd);
    presence->fd = -1;
}
