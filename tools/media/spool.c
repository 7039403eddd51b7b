/* spool.c: see spool.h. */
#include "tools/media/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/descriptor.h"

static bool is_standard_input(const char *path)
{
    return !strcmp(path, "-");
}

bool spool_is_needed(const char *path)
{
    struct stat info;
    return is_standard_input(path) || (!stat(path, &info) && (S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode)));
}

static int copy(int from, int to, struct error *error)
{
    uint8_t piece[65536];
    uint64_t bytes = 0;
    for (;;) {
        ssize_t got = read(from, piece, sizeof piece);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(error, ERROR_IO, "cannot be read: %s", strerror(errno));
        if (got == 0)
            break;
        bytes += (uint64_t)got;
        if (bytes > (uint64_t)SPOOL_MAX_MB << 20)
            return error_set(error, ERROR_TOO_LARGE, "more than %d MB come through it; a file may be larger",
                             SPOOL_MAX_MB);
        if (!descriptor_write(to, piece, (size_t)got))
            return error_set(error, ERROR_IO, "cannot be kept in memory: %s", strerror(errno));
    }
    return bytes ? 0 : error_set(error, ERROR_BAD_FILE, "nothing came through it");
}

int spool_open(struct spool *spool, const char *path, struct error *error)
{
    spool->descriptor = -1;
    int from = is_standard_input(path) ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (from < 0)
        return error_set(error, ERROR_IO, "cannot be read: %s", strerror(errno));
    int code = 0;
    if (isatty(from))
        code = error_set(error, ERROR_BAD_FILE, "is a terminal; a file or a pipe is wanted");
    else if ((spool->descriptor = memfd_create("lancectl source", MFD_CLOEXEC)) < 0)
        code = error_set(error, ERROR_IO, "cannot be kept in memory: %s", strerror(errno));
    else
        code = copy(from, spool->descriptor, error);
    if (from != STDIN_FILENO)
        close(from);
    if (code)
        spool_close(spool);
    else
        snprintf(spool->path, sizeof spool->path, "/proc/self/fd/%d", spool->descriptor);
    return code;
}

void spool_close(struct spool *spool)
{
    if (spool->descriptor >= 0)
        close(spool->descriptor);
    spool->descriptor = -1;
}
