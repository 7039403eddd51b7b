/* text_file.c: see text_file.h. */
#include "base/text_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum kind { KIND_TEXT, KIND_SECRET, KIND_KEPT_SECRET };

static int check_kind(int file, enum kind kind, const char *path, const char *what, struct error *error)
{
    struct stat info;
    if (fstat(file, &info) != 0)
        return error_set(error, ERROR_IO, "%s %s: %s", what, path, strerror(errno));
    const bool is_regular = S_ISREG(info.st_mode);
    if (!is_regular && kind == KIND_KEPT_SECRET)
        return error_set(error, ERROR_BAD_FILE, "%s %s: is not a regular file, and is to be read more than once", what,
                         path);
    if (is_regular && kind != KIND_TEXT && (info.st_mode & 077) != 0)
        return error_set(error, ERROR_IO,
                         "%s %s: others than its owner can use it (mode %03o), so that it is no "
                         "secret; chmod 600 it, and take a new one if they could read it",
                         what, path, (unsigned)info.st_mode & 0777);
    if (fcntl(file, F_SETFL, 0) != 0) /* what is in a pipe is waited for */
        return error_set(error, ERROR_IO, "%s %s: %s", what, path, strerror(errno));
    return 0;
}

/* Up to the end of the file, a byte over `most` at the most. */
static int read_all(char *text, int file, size_t most, const char *path, const char *what, struct error *error)
{
    size_t length = 0;
    ssize_t got = 1;
    while (got != 0 && length <= most) {
        got = read(file, text + length, most + 1 - length);
        if (got < 0 && errno != EINTR)
            return error_set(error, ERROR_IO, "%s %s: %s", what, path, strerror(errno));
        length += got > 0 ? (size_t)got : 0;
    }
    if (length > most)
        return error_set(error, ERROR_BAD_FILE, "%s %s: has more than %zu bytes", what, path, most);
    text[length] = '\0';
    if (strlen(text) != length)
        return error_set(error, ERROR_BAD_FILE, "%s %s: is no text", what, path);
    return 0;
}

static int read_file(char **text, const char *path, size_t most, const char *what, enum kind kind, struct error *error)
{
    *text = NULL;
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* to open a pipe must not hang */
    if (file < 0)
        return error_set(error, ERROR_IO, "%s %s: %s", what, path, strerror(errno));
    int code = check_kind(file, kind, path, what, error);
    if (code == 0 && !(*text = malloc(most + 2)))
        code = error_set(error, ERROR_NO_MEMORY, "%s %s: out of memory", what, path);
    if (code == 0)
        code = read_all(*text, file, most, path, what, error);
    close(file);
    if (code != 0) {
        free(*text);
        *text = NULL;
    }
    return code;
}

int text_file_read(char **text, const char *path, size_t most, const char *what, struct error *error)
{
    return read_file(text, path, most, what, KIND_TEXT, error);
}

int secret_file_read(char **text, const char *path, size_t most, const char *what, struct error *error)
{
    return read_file(text, path, most, what, KIND_SECRET, error);
}

int kept_secret_file_read(char **text, const char *path, size_t most, const char *what, struct error *error)
{
    return read_file(text, path, most, what, KIND_KEPT_SECRET, error);
}
