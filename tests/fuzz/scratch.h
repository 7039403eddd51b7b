/* scratch.h: a folder in memory for targets whose code reads files; it goes when the program ends. */
#ifndef TESTS_FUZZ_SCRATCH_H
#define TESTS_FUZZ_SCRATCH_H

#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char scratch_folder[64];

static inline int scratch_remove_one(const char *path, const struct stat *about, int kind, struct FTW *place)
{
    (void)about;
    (void)kind;
    (void)place;
    return remove(path);
}

/* Remove a folder and what is in it, which may be nothing. A program for it would cost more than most inputs do. */
static inline void scratch_remove_folder(const char *path)
{
    enum { MOST_OPEN = 8 };
    if (access(path, F_OK) == 0 && nftw(path, scratch_remove_one, MOST_OPEN, FTW_DEPTH | FTW_PHYS) != 0) {
        perror(path);
        exit(1);
    }
}

static inline void scratch_remove(void)
{
    scratch_remove_folder(scratch_folder);
}

/* The folder, made at the first call. */
static inline const char *scratch(void)
{
    if (scratch_folder[0] == '\0') {
        const char *memory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
        snprintf(scratch_folder, sizeof scratch_folder, "%s/fuzz-XXXXXX", memory);
        if (!mkdtemp(scratch_folder)) {
            perror(scratch_folder);
            exit(1);
        }
        atexit(scratch_remove);
    }
    return scratch_folder;
}

/* Write a file of the folder; `path` receives its whole name. */
static inline const char *scratch_write(char path[PATH_MAX], const char *name, const void *data, size_t bytes)
{
    snprintf(path, PATH_MAX, "%s/%s", scratch(), name);
    unlink(path);
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (file < 0 || write(file, data, bytes) != (ssize_t)bytes) {
        perror(path);
        exit(1);
    }
    close(file);
    return path;
}

#endif
