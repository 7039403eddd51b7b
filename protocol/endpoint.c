/* endpoint.c: see endpoint.h. */
#include "protocol/endpoint.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* The folder of the default endpoint. Returns whether it fits. */
static bool default_folder(char folder[ENDPOINT_MAX_BYTES])
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    struct stat info;
    int length;
    if (runtime && runtime[0] == '/' && stat(runtime, &info) == 0 && S_ISDIR(info.st_mode))
        length = snprintf(folder, ENDPOINT_MAX_BYTES, "%s/lanced", runtime);
    else
        length = snprintf(folder, ENDPOINT_MAX_BYTES, "/tmp/lanced-%lu", (unsigned long)getuid());
    return length < ENDPOINT_MAX_BYTES;
}

/* "127.0.0.1:8471", "localhost:8471", "[::1]:8471" */
static bool is_loopback(const char *address)
{
    if (strpbrk(address, "@/?#")) /* what stands before an @ nng takes for a user, not for the address */
        return false;
    static const char *const names[] = {"localhost:", "[::1]:"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strncmp(address, names[i], strlen(names[i])) == 0)
            return true;
    /* A dotted quad in 127/8, not a host name that only begins like one ("127.example.org"). */
    size_t length = strspn(address, "0123456789.");
    return strncmp(address, "127.", 4) == 0 && address[length] == ':';
}

static bool has_port(const char *address)
{
    const char *colon = strrchr(address, ':');
    if (!colon || colon[1] == '\0')
        return false;
    char *end;
    unsigned long port = strtoul(colon + 1, &end, 10);
    return isdigit((unsigned char)colon[1]) && *end == '\0' && port >= 1 && port <= 65535;
}

static int check_address(const char *given, const char *address, bool is_tls, struct error *error)
{
    if (!has_port(address) || address[0] == ':')
        return error_set(error, ERROR_BAD_REQUEST, "endpoint: \"%s\" needs a host and a port, such as %s", given,
                         is_tls ? "tls+tcp://lance.example:8471" : "tcp://127.0.0.1:8471");
    if (is_tls || is_loopback(address))
        return 0;
    return error_set(error, ERROR_UNSUPPORTED,
                     "endpoint: %s is not a loopback address, and what goes there in the clear others can read and "
                     "change; use tls+tcp://%s (lancectl ca makes certificates), or forward the port: ssh -L "
                     "8471:127.0.0.1:8471 HOST",
                     given, address);
}

int endpoint_resolve(struct endpoint *out, const char *given, struct error *error)
{
    memset(out, 0, sizeof *out);
    if (!given || given[0] == '\0')
        given = getenv("LANCED_ENDPOINT");
    char url[ENDPOINT_MAX_BYTES + 32];
    if (!given || given[0] == '\0') {
        char folder[ENDPOINT_MAX_BYTES];
        if (!default_folder(folder))
            return error_set(error, ERROR_BAD_REQUEST, "endpoint: XDG_RUNTIME_DIR is too long for a socket path");
        snprintf(url, sizeof url, "ipc://%s/lanced.ipc", folder);
        given = url;
    }
    if (strlen(given) >= sizeof out->url)
        return error_set(error, ERROR_BAD_REQUEST, "endpoint: \"%.40s...\" is too long (at most %d bytes)", given,
                         ENDPOINT_MAX_BYTES - 1);
    strcpy(out->url, given);

    if (strncmp(given, "ipc://", 6) == 0) {
        const char *path = given + 6;
        size_t longest = sizeof((struct sockaddr_un *)0)->sun_path - 1;
        if (path[0] != '/')
            return error_set(error, ERROR_BAD_REQUEST,
                             "endpoint: \"%s\" needs an absolute path, such as ipc:///run/lanced/lanced.ipc", given);
        size_t folder = (size_t)(strrchr(path, '/') - path);
        if (strlen(path) > longest || folder + ENDPOINT_OWN_NAME_BYTES > longest)
            return error_set(error, ERROR_BAD_REQUEST,
                             "endpoint: the socket path %s is too long (at most %zu bytes, %zu of them for "
                             "its folder)",
                             path, longest, longest - ENDPOINT_OWN_NAME_BYTES);
        strcpy(out->path, path);
        return 0;
    }
    out->is_tls = strncmp(given, "tls+tcp://", 10) == 0;
    if (out->is_tls || strncmp(given, "tcp://", 6) == 0)
        return check_address(given, given + (out->is_tls ? 10 : 6), out->is_tls, error);
    return error_set(error, ERROR_BAD_REQUEST, "endpoint: \"%s\" must begin with ipc://, tcp:// or tls+tcp://", given);
}

void endpoint_split(const struct endpoint *endpoint, char host[ENDPOINT_MAX_BYTES], char port[ENDPOINT_MAX_BYTES])
{
    const char *address = strstr(endpoint->url, "://") + 3, *colon = strrchr(address, ':');
    const bool has_brackets = address[0] == '[' && colon[-1] == ']';
    snprintf(host, ENDPOINT_MAX_BYTES, "%.*s", (int)(colon - address) - 2 * has_brackets, address + has_brackets);
    snprintf(port, ENDPOINT_MAX_BYTES, "%s", colon + 1);
}

/* The folder of an ipc endpoint; whether it is the default one. */
static bool split_folder(char folder[ENDPOINT_MAX_BYTES], const struct endpoint *endpoint)
{
    char usual[ENDPOINT_MAX_BYTES];
    strcpy(folder, endpoint->path);
    char *slash = strrchr(folder, '/');
    slash[slash == folder] = '\0';
    return default_folder(usual) && strcmp(folder, usual) == 0;
}

/* A link is none, whoever made it and wherever it leads. */
static bool is_private_folder(const struct stat *info)
{
    return S_ISDIR(info->st_mode) && info->st_uid == getuid() && (info->st_mode & 077) == 0;
}

static int refuse_folder(const char *folder, struct error *error)
{
    return error_set(error, ERROR_IO,
                     "endpoint: %s must be a folder of yours that nobody else can enter; remove it, or: chmod 700 %s",
                     folder, folder);
}

int endpoint_prepare(const struct endpoint *endpoint, struct error *error)
{
    char folder[ENDPOINT_MAX_BYTES];
    if (endpoint->path[0] == '\0')
        return 0;
    bool is_default = split_folder(folder, endpoint);
    if (is_default && mkdir(folder, 0700) != 0 && errno != EEXIST)
        return error_set(error, ERROR_IO, "endpoint: cannot make the folder %s: %s", folder, strerror(errno));

    struct stat info;
    if (lstat(folder, &info) != 0)
        return error_set(error, ERROR_IO, "endpoint: the folder %s: %s; make it first", folder, strerror(errno));
    if (!is_default) /* the user's own choice: any folder, through a link too */
        return 0;
    return is_private_folder(&info) ? 0 : refuse_folder(folder, error);
}

int endpoint_trust(const struct endpoint *endpoint, struct error *error)
{
    char folder[ENDPOINT_MAX_BYTES];
    struct stat info;
    if (endpoint->path[0] == '\0' || !split_folder(folder, endpoint))
        return 0;
    if (lstat(folder, &info) != 0) /* nobody answers there, then */
        return 0;
    if (is_private_folder(&info))
        return 0;
    refuse_folder(folder, error);
    error->code = ERROR_UNSUPPORTED; /* not ERROR_IO, which says that no daemon is there and one may be started */
    return error->code;
}
