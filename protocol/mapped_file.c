/* mapped_file.c: see mapped_file.h. */
#include "protocol/mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int mapped_file_open(struct mapped_file *mapped, const char *path, struct error *error)
{
    *mapped = (struct mapped_file){0};
    /* O_NONBLOCK: opening a pipe that somebody left in the folder must not hang. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set(error, errno == ENOENT ? ERROR_BAD_FILE : ERROR_IO, "%s: %s", path, strerror(errno));
    struct stat status;
    int result = 0;
    if (fstat(fd, &status) != 0)
        result = error_set(error, ERROR_IO, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(status.st_mode))
        result = error_set(error, ERROR_BAD_FILE, "%s: not a regular file", path);
    else if (status.st_size > 0) {
        void *data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            result = error_set(error, ERROR_IO, "%s: cannot map %lld bytes: %s", path,
                               (long long)status.st_size, strerror(errno));
        else
            *mapped = (struct mapped_file){.data = data, .bytes = (uint64_t)status.st_size};
    }
    close(fd);
    return result;
}

void mapped_file_close(struct mapped_file *mapped)
{
    if (mapped->data)
        munmap((void *)(uintptr_t)mapped->data, (size_t)mapped->bytes);
    *mapped = (struct mapped_file){0};
}

void mapped_file_prefetch(const void *data, uint64_t bytes)
{
    uintptr_t begin = (uintptr_t)data, page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t aligned = begin / page * page;
    madvise((void *)aligned, (size_t)(begin - aligned + bytes), MADV_WILLNEED);
}
