/* descriptor.c: see descriptor.h. */
#include "base/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* What is asked of the system at once: far below what it takes, so that a signal is heard. */
static const uint64_t piece_bytes = (uint64_t)8 << 20;

bool descriptor_write(int file, const void *data, uint64_t bytes)
{
    const char *from = data;
    while (bytes > 0) {
        const ssize_t written = write(file, from, bytes < piece_bytes ? bytes : piece_bytes);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        from += written;
        bytes -= (uint64_t)written;
    }
    return true;
}

bool descriptor_read(int file, void *data, uint64_t bytes)
{
    char *to = data;
    while (bytes > 0) {
        const ssize_t count = read(file, to, bytes < piece_bytes ? bytes : piece_bytes);
        if (count < 0 && errno == EINTR)
            continue;
        if (count == 0)
            errno = EIO;
        if (count <= 0)
            return false;
        to += count;
        bytes -= (uint64_t)count;
    }
    return true;
}

FILE *regular_file_open(const char *path)
{
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return NULL;
    struct stat info;
    int why = fstat(file, &info) != 0 ? errno : S_ISREG(info.st_mode) ? 0 : EINVAL;
    FILE *stream = why == 0 ? fdopen(file, "rb") : NULL;
    if (stream)
        return stream;
    why = why != 0 ? why : errno;
    close(file);
    errno = why;
    return NULL;
}
