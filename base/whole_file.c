/* whole_file.c: see whole_file.h. */
#include "base/whole_file.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* "clip/" names the same as "clip". */
static size_t length_without_slashes(const char *path)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    return length;
}

/* Where the last component begins. */
static size_t base_of(const char *path, size_t length)
{
    while (length > 0 && path[length - 1] != '/')
        length--;
    return length;
}

/* What a temporary name adds, and how long a name may be to which it can be added on any disk. */
enum { ADDED_BYTES = 8, SHORT_NAME_BYTES = 32 };

char *temporary_name(const char *path)
{
    size_t length = length_without_slashes(path), base = base_of(path, length), kept = length - base;
    if (kept > SHORT_NAME_BYTES) { /* no longer than the name itself, and cut between two characters */
        kept -= ADDED_BYTES;
        while (kept > 0 && ((unsigned char)path[base + kept] & 0xc0) == 0x80)
            kept--;
    }
    char *name;
    return asprintf(&name, "%.*s.%.*s.XXXXXX", (int)base, path, (int)kept, path + base) < 0 ? NULL : name;
}

/* How many links one after another are followed: as many as Linux follows. */
enum { LINKS_AT_MOST = 40 };

/* Where the link `path` leads, seen from our own folder. malloc'ed; NULL: no link, or ENOMEM. */
static char *read_link(const char *path)
{
    char content[PATH_MAX];
    ssize_t bytes = readlink(path, content, sizeof content);
    if (bytes < 0)
        return NULL;
    char *leads_to;
    int base = *content == '/' ? 0 : (int)base_of(path, strlen(path));
    return asprintf(&leads_to, "%.*s%.*s", base, path, (int)bytes, content) < 0 ? NULL : leads_to;
}

int follow_links(char **out, const char *path, struct error *error)
{
    *out = strndup(path, length_without_slashes(path));
    for (int links = 0; *out; links++) {
        errno = 0;
        char *next = read_link(*out);
        if (!next && errno != ENOMEM)
            return 0;
        free(*out);
        *out = next;
        if (next && links == LINKS_AT_MOST) {
            free(next);
            *out = NULL;
            return error_set(error, ERROR_IO, "cannot write %s: %s", path, strerror(ELOOP));
        }
    }
    return error_set(error, ERROR_NO_MEMORY, "no memory to write %s", path);
}

/* A device or a pipe would be replaced by a file. */
static int check_is_file(const char *path, struct error *error)
{
    struct stat info;
    if (stat(path, &info) || S_ISREG(info.st_mode))
        return 0;
    return error_set(error, ERROR_IO, "cannot write %s: it is %s", path,
                     S_ISDIR(info.st_mode) ? "a folder" : "neither a file nor a new name");
}

static mode_t usual_mode(void)
{
    mode_t mask = umask(0);
    umask(mask);
    return 0666 & ~mask;
}

int whole_file_begin(struct whole_file *file, const char *path, struct error *error)
{
    *file = (struct whole_file){.path = path, .descriptor = -1};
    int code = check_is_file(path, error);
    if (!code)
        code = follow_links(&file->target, path, error);
    if (code)
        return code;
    file->temporary = temporary_name(file->target);
    if (file->temporary && (file->descriptor = mkstemp(file->temporary)) >= 0)
        return 0;
    code = file->temporary ? error_set(error, ERROR_IO, "cannot write %s: %s", path, strerror(errno))
                           : error_set(error, ERROR_NO_MEMORY, "no memory to write %s", path);
    free(file->temporary);
    free(file->target);
    return code;
}

int whole_file_end(struct whole_file *file, const char *failure, struct error *error)
{
    char reason[WHOLE_FILE_REASON_BYTES] = "";
    if (failure)
        snprintf(reason, sizeof reason, "%s", failure);
    else if (fsync(file->descriptor) || fchmod(file->descriptor, usual_mode()) || rename(file->temporary, file->target))
        snprintf(reason, sizeof reason, "%s", strerror(errno));
    close(file->descriptor);
    if (*reason)
        unlink(file->temporary);
    free(file->temporary);
    free(file->target);
    return *reason ? error_set(error, ERROR_IO, "cannot write %s: %s", file->path, reason) : 0;
}

static int check_folder_of(const char *target, const char *path, struct error *error)
{
    size_t length = strlen(target), base = base_of(target, length);
    char *folder = base ? strndup(target, base > 1 ? base - 1 : 1) : strdup(".");
    if (!folder)
        return error_set(error, ERROR_NO_MEMORY, "no memory");
    struct stat info;
    int code = 0;
    if (stat(folder, &info) || access(folder, W_OK | X_OK))
        code = error_set(error, ERROR_IO, "cannot write %s: the folder %s: %s", path, folder, strerror(errno));
    else if (!S_ISDIR(info.st_mode))
        code = error_set(error, ERROR_IO, "cannot write %s: %s is not a folder", path, folder);
    else if (stat(target, &info) && errno == ENAMETOOLONG)
        code = error_set(error, ERROR_IO,
                         "cannot write a file with a name of %zu bytes: names have at most %ld there, "
                         "and paths %d: %.200s",
                         length - base, pathconf(folder, _PC_NAME_MAX), PATH_MAX - 1, target + base);
    free(folder);
    return code;
}

int whole_file_check_folder(const char *path, struct error *error)
{
    char *target;
    int code = follow_links(&target, path, error);
    if (code)
        return code;
    code = check_folder_of(target, path, error);
    free(target);
    return code;
}

int whole_file_check(const char *path, struct error *error)
{
    int code = check_is_file(path, error);
    return code ? code : whole_file_check_folder(path, error);
}

int whole_file_write(const char *path, const void *data, uint64_t bytes, struct error *error)
{
    struct whole_file file;
    int code = whole_file_begin(&file, path, error);
    if (code)
        return code;
    FILE *stream = fopen(file.temporary, "wbe");
    bool is_written = stream && fwrite(data, 1, bytes, stream) == bytes;
    int reason = errno;
    if (stream && fclose(stream) != 0 && is_written) {
        is_written = false;
        reason = errno;
    }
    return whole_file_end(&file, is_written ? NULL : strerror(reason), error);
}
