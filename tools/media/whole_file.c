/* whole_file.c: see whole_file.h. */
#include "tools/media/whole_file.h"

#include <errno.h>
#include <limits.h>
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

static mode_t usual_mode(void)
{
    mode_t mask = umask(0);
    umask(mask);
    return 0666 & ~mask;
}

int whole_file_begin(struct whole_file *file, const char *path, struct error *error)
{
    *file = (struct whole_file){.path = path, .temporary = temporary_name(path), .descriptor = -1};
    if (!file->temporary)
        return error_set(error, ERROR_NO_MEMORY, "no memory to write %s", path);
    file->descriptor = mkstemp(file->temporary);
    if (file->descriptor >= 0)
        return 0;
    int reason = errno;
    free(file->temporary);
    return error_set(error, ERROR_IO, "cannot write %s: %s", path, strerror(reason));
}

int whole_file_end(struct whole_file *file, const char *failure, struct error *error)
{
    char reason[WHOLE_FILE_REASON_BYTES] = "";
    if (failure)
        snprintf(reason, sizeof reason, "%s", failure);
    else if (fsync(file->descriptor) || fchmod(file->descriptor, usual_mode()) || rename(file->temporary, file->path))
        snprintf(reason, sizeof reason, "%s", strerror(errno));
    close(file->descriptor);
    if (*reason)
        unlink(file->temporary);
    free(file->temporary);
    return *reason ? error_set(error, ERROR_IO, "cannot write %s: %s", file->path, reason) : 0;
}

int whole_file_check_folder(const char *path, struct error *error)
{
    size_t length = length_without_slashes(path), base = base_of(path, length);
    char *folder = base ? strndup(path, base > 1 ? base - 1 : 1) : strdup(".");
    if (!folder)
        return error_set(error, ERROR_NO_MEMORY, "no memory");
    struct stat info;
    int code = 0;
    if (stat(folder, &info) || access(folder, W_OK | X_OK))
        code = error_set(error, ERROR_IO, "cannot write %s: the folder %s: %s", path, folder, strerror(errno));
    else if (!S_ISDIR(info.st_mode))
        code = error_set(error, ERROR_IO, "cannot write %s: %s is not a folder", path, folder);
    else if (stat(path, &info) && errno == ENAMETOOLONG)
        code = error_set(error, ERROR_IO, "cannot write a file with a name of %zu bytes: names have at most %ld there, "
                         "and paths %d: %.200s", length - base, pathconf(folder, _PC_NAME_MAX), PATH_MAX - 1, path + base);
    free(folder);
    return code;
}

int whole_file_check(const char *path, struct error *error)
{
    struct stat info;
    if (!stat(path, &info) && S_ISDIR(info.st_mode))
        return error_set(error, ERROR_IO, "cannot write %s: it is a folder", path);
    return whole_file_check_folder(path, error);
}
