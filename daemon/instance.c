/* instance.c: see instance.h. */
#include "daemon/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct instance {
    int lock_fd; /* -1: none */
    char socket_path[ENDPOINT_MAX_BYTES];
};

/* Take <socket>.lock and write our pid into it, for whoever wonders. */
static int take_lock(struct instance *instance, struct error *error)
{
    char path[ENDPOINT_MAX_BYTES + 8];
    snprintf(path, sizeof path, "%s.lock", instance->socket_path);
    instance->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (instance->lock_fd < 0)
        return error_set(error, ERROR_IO, "endpoint: cannot open the lock file %s: %s", path, strerror(errno));
    if (flock(instance->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        char pid[24] = "";
        if (errno != EWOULDBLOCK)
            return error_set(error, ERROR_IO, "endpoint: cannot lock %s: %s", path, strerror(errno));
        ssize_t length = read(instance->lock_fd, pid, sizeof pid - 1);
        pid[length > 0 ? (size_t)length : 0] = '\0';
        pid[strcspn(pid, "\n")] = '\0';
        return error_set(
            error, ERROR_BUSY,
            "endpoint ipc://%s: another lanced (process %s) serves it; stop that one or use another --endpoint",
            instance->socket_path, pid[0] != '\0' ? pid : "unknown");
    }
    char pid[24];
    int length = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(instance->lock_fd, 0) != 0 || write(instance->lock_fd, pid, (size_t)length) != length)
        return error_set(error, ERROR_IO, "endpoint: cannot write %s: %s", path, strerror(errno));
    return 0;
}

/* Remove a socket that nobody listens on any more. */
static int clear_stale_socket(const struct instance *instance, struct error *error)
{
    const char *path = instance->socket_path;
    struct stat info;
    if (lstat(path, &info) != 0)
        return errno == ENOENT ? 0 : error_set(error, ERROR_IO, "endpoint: %s: %s", path, strerror(errno));
    if (!S_ISSOCK(info.st_mode))
        return error_set(error, ERROR_IO, "endpoint: %s exists and is no socket; remove it or use another --endpoint",
                         path);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path) + 1); /* endpoint_resolve saw that it fits */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set(error, ERROR_IO, "endpoint: cannot open a socket: %s", strerror(errno));
    bool refused = connect(fd, (struct sockaddr *)&address, sizeof address) != 0 && errno == ECONNREFUSED;
    close(fd);
    if (!refused)
        return error_set(error, ERROR_BUSY, "endpoint ipc://%s: another program serves it; use another --endpoint",
                         path);
    if (unlink(path) != 0)
        return error_set(error, ERROR_IO, "endpoint: cannot remove the stale socket %s: %s", path, strerror(errno));
    return 0;
}

int instance_open(struct instance **out, const struct endpoint *endpoint, struct error *error)
{
    *out = NULL;
    struct instance *instance = calloc(1, sizeof *instance);
    if (!instance)
        return error_set(error, ERROR_NO_MEMORY, "endpoint: out of memory");
    instance->lock_fd = -1;
    int code = 0;
    if (endpoint->path[0] != '\0') {
        snprintf(instance->socket_path, sizeof instance->socket_path, "%s", endpoint->path);
        code = endpoint_prepare(endpoint, error);
        if (code == 0)
            code = take_lock(instance, error);
        if (code == 0)
            code = clear_stale_socket(instance, error);
    }
    if (code != 0) {
        instance_close(instance);
        return code;
    }
    *out = instance;
    return 0;
}

void instance_close(struct instance *instance)
{
    if (!instance)
        return;
    /* The lock file stays: removing it would let two daemons lock two files of one name. */
    if (instance->lock_fd >= 0)
        close(instance->lock_fd);
    free(instance);
}
