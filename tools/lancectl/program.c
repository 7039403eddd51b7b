/* program.c: see program.h. */
#include "tools/lancectl/program.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_BYTES = 1 << 20, NOT_STARTED = 127 };

void program_find_lanced(char *path, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", path, size - 1);
    char *slash = NULL;
    if (length > 0) {
        path[length] = '\0';
        slash = strrchr(path, '/');
    }
    if (slash && (size_t)(slash - path) + sizeof "/lanced" <= size) {
        strcpy(slash, "/lanced");
        if (!access(path, X_OK))
            return;
    }
    snprintf(path, size, "lanced");
}

/* What was written into a file in memory, without the newlines at its end; NULL: nothing. */
static char *text_of(int file)
{
    const off_t size = lseek(file, 0, SEEK_END);
    size_t length = size > 0 ? (size_t)size : 0;
    length = length < MOST_BYTES ? length : MOST_BYTES;
    char *text = length ? malloc(length + 1) : NULL;
    ssize_t got = text ? pread(file, text, length, 0) : 0;
    while (got > 0 && text[got - 1] == '\n')
        got--;
    if (got <= 0) {
        free(text);
        return NULL;
    }
    text[got] = '\0';
    return text;
}

/* The child's part: never returns. */
static void become(const char *const argv[], int out, int errors)
{
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (nothing >= 0 && dup2(nothing, 0) >= 0 && dup2(out, 1) >= 0 && dup2(errors, 2) >= 0) {
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        dprintf(2, "cannot start %s: %s", argv[0], strerror(errno));
    }
    _exit(NOT_STARTED);
}

int program_run(const char *const argv[], char **out, char **errors)
{
    *out = *errors = NULL;
    int files[2] = {memfd_create("out", MFD_CLOEXEC), memfd_create("errors", MFD_CLOEXEC)}, status = 0;
    const pid_t pid = files[0] >= 0 && files[1] >= 0 ? fork() : -1;
    if (pid == 0)
        become(argv, files[0], files[1]);
    bool ended = pid > 0;
    while (ended && waitpid(pid, &status, 0) < 0)
        ended = errno == EINTR;
    if (ended) {
        *out = text_of(files[0]);
        *errors = text_of(files[1]);
    }
    for (int i = 0; i < 2; i++)
        if (files[i] >= 0)
            close(files[i]);
    return !ended ? NOT_STARTED : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
