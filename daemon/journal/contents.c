/* contents.c: see contents.h. */
#include "daemon/journal/contents.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/descriptor.h"

static const char unfinished[] = "unfinished"; /* the one file that may be half written */

struct contents {
    int folder;
    bool has_new_names;
};

static int failed(struct error *error, const char *what, const char *name)
{
    return error_set(error, ERROR_IO, "state folder: cannot %s contents/%.64s: %s", what, name, strerror(errno));
}

int contents_open(struct contents **out, int parent, struct error *error)
{
    *out = NULL;
    if (mkdirat(parent, "contents", 0700) != 0 && errno != EEXIST)
        return failed(error, "make", "");
    const int folder = openat(parent, "contents", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (folder < 0 || fsync(parent) != 0) {
        int code = failed(error, "open", "");
        if (folder >= 0)
            close(folder);
        return code;
    }
    struct contents *contents = calloc(1, sizeof *contents);
    if (!contents) {
        close(folder);
        return error_set(error, ERROR_NO_MEMORY, "state folder: out of memory");
    }
    contents->folder = folder;
    unlinkat(folder, unfinished, 0);
    *out = contents;
    return 0;
}

void contents_close(struct contents *contents)
{
    if (!contents)
        return;
    close(contents->folder);
    free(contents);
}

int contents_write(struct contents *contents, const char *hash, const void *data, uint64_t bytes, struct error *error)
{
    const int file = openat(contents->folder, unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0)
        return failed(error, "write", hash);
    bool is_written = descriptor_write(file, data, bytes) && fsync(file) == 0;
    int reason = errno;
    is_written = close(file) == 0 && is_written;
    if (is_written && renameat(contents->folder, unfinished, contents->folder, hash) == 0) {
        contents->has_new_names = true;
        return 0;
    }
    errno = reason;
    int code = failed(error, "write", hash);
    unlinkat(contents->folder, unfinished, 0);
    return code;
}

int contents_sync(struct contents *contents, struct error *error)
{
    if (contents->has_new_names && fsync(contents->folder) != 0)
        return failed(error, "sync", "");
    contents->has_new_names = false;
    return 0;
}

void contents_remove(struct contents *contents, const char *hash)
{
    if (sha256_is_hex(hash)) /* a damaged database may say anything, and that would be another file */
        unlinkat(contents->folder, hash, 0);
}

/* Open a file that has so many bytes. */
static int open_file(struct contents *contents, const char *hash, uint64_t bytes, int *file, struct error *error)
{
    struct stat info;
    *file = -1;
    if (!sha256_is_hex(hash))
        return error_set(error, ERROR_BAD_FILE, "state folder: a content is called \"%.64s\", which is no SHA-256",
                         hash);
    *file = openat(contents->folder, hash, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (*file < 0 && errno == ENOENT)
        return error_set(error, ERROR_BAD_FILE, "state folder: contents/%.64s is missing", hash);
    if (*file < 0)
        return failed(error, "open", hash);
    if (fstat(*file, &info) == 0 && (uint64_t)info.st_size == bytes)
        return 0;
    close(*file);
    return error_set(error, ERROR_BAD_FILE, "state folder: contents/%.64s has %llu bytes, and should have %llu", hash,
                     (unsigned long long)info.st_size, (unsigned long long)bytes);
}

int contents_read(struct contents *contents, const char *hash, uint64_t bytes, void **data, struct error *error)
{
    int file;
    *data = NULL;
    int code = open_file(contents, hash, bytes, &file, error);
    if (code != 0)
        return code;
    *data = malloc(bytes > 0 ? bytes : 1);
    if (!*data)
        code = error_set(error, ERROR_NO_MEMORY, "state folder: no memory for the %llu bytes of contents/%.64s",
                         (unsigned long long)bytes, hash);
    else if (!descriptor_read(file, *data, bytes))
        code = failed(error, "read", hash);
    close(file);
    if (code != 0) {
        free(*data);
        *data = NULL;
    }
    return code;
}

int contents_each(struct contents *contents, int (*each)(void *context, const char *hash, uint64_t bytes),
                  void *context, struct error *error)
{
    const int copy = openat(contents->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = copy >= 0 ? fdopendir(copy) : NULL;
    if (!list) {
        if (copy >= 0)
            close(copy);
        return failed(error, "list", "");
    }
    int code = 0;
    for (struct dirent *entry; code == 0 && (entry = readdir(list));) {
        struct stat info;
        if (sha256_is_hex(entry->d_name) && fstatat(contents->folder, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0)
            code = each(context, entry->d_name, (uint64_t)info.st_size);
    }
    closedir(list);
    return code;
}
