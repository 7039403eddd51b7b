/* identity.c: see identity.h. */
#include "daemon/engine/model/checkpoint/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sha256.h"
#include "base/whole_file.h"

enum {
    MOST_THREADS = 4,
    READ_BYTES = 1 << 20,
    MOST_READS = 3, /* of one file, whose name or rights somebody changes meanwhile */
    KEPT_FROM_BYTES = 16 << 20 /* a smaller file is hashed anew in no time */
};

struct hashed_file {
    char *role, *path;
    int descriptor;
    struct stat opened; /* as it was when it was opened */
    char hex[65];
    struct error failure; /* its code 0: none */
};

struct identity {
    char *cache_folder;
    struct hashed_file *files;
    int count;
    atomic_int next;     /* the next file that nobody has taken */
    atomic_bool stopped;
    pthread_t threads[MOST_THREADS];
    int thread_count;
};

int identity_open(struct identity **out, const char *cache_folder, struct error *error)
{
    struct identity *identity = *out = calloc(1, sizeof *identity);
    if (identity && (!cache_folder || (identity->cache_folder = strdup(cache_folder))))
        return 0;
    identity_close(identity);
    *out = NULL;
    return error_set(error, ERROR_NO_MEMORY, "no memory to hash the model's files");
}

int identity_add(struct identity *identity, const char *role, const char *path, struct error *error)
{
    struct hashed_file *files = realloc(identity->files, (size_t)(identity->count + 1) * sizeof *files);
    if (!files)
        return error_set(error, ERROR_NO_MEMORY, "%s: no memory to hash it", path);
    identity->files = files;
    struct hashed_file *file = &files[identity->count++];
    *file = (struct hashed_file){.role = strdup(role), .path = strdup(path), 
                                 .descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (!file->role || !file->path)
        return error_set(error, ERROR_NO_MEMORY, "%s: no memory to hash it", path);
    if (file->descriptor < 0 || fstat(file->descriptor, &file->opened))
        return error_set(error, ERROR_BAD_FILE, "%s: cannot be read: %s", path, strerror(errno));
    return 0;
}

/* ---- What is kept ---- */

static bool is_kept(const struct identity *identity, const struct hashed_file *file)
{
    return identity->cache_folder && file->opened.st_size >= KEPT_FROM_BYTES;
}

/* Whatever is done to a file changes one of these: its status's time even where its own was put back. */
static bool name_in_cache(char path[PATH_MAX], const struct identity *identity, const struct hashed_file *file)
{
    const struct stat *s = &file->opened;
    const int length =
        snprintf(path, PATH_MAX, "%s/%llx-%llx-%llx-%llx.%lx-%llx.%lx.sha256", identity->cache_folder,
                 (unsigned long long)s->st_dev, (unsigned long long)s->st_ino, (unsigned long long)s->st_size,
                 (unsigned long long)s->st_mtim.tv_sec, (unsigned long)s->st_mtim.tv_nsec,
                 (unsigned long long)s->st_ctim.tv_sec, (unsigned long)s->st_ctim.tv_nsec);
    return length < PATH_MAX;
}

static bool recall(const struct identity *identity, struct hashed_file *file)
{
    char path[PATH_MAX], text[66] = "";
    if (!is_kept(identity, file) || !name_in_cache(path, identity, file))
        return false;
    /* O_NONBLOCK: opening a pipe that somebody left there must not hang. */
    const int kept = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    const ssize_t bytes = kept >= 0 ? pread(kept, text, sizeof text - 1, 0) : 0;
    if (kept >= 0)
        close(kept);
    if (bytes != 65 || text[64] != '\n' || strspn(text, "0123456789abcdef") != 64)
        return false;
    memcpy(file->hex, text, 64);
    file->hex[64] = '\0';
    return true;
}

/* Without success it is done anew the next time. */
static void remember(const struct identity *identity, const struct hashed_file *file)
{
    char path[PATH_MAX];
    struct whole_file whole;
    struct error unused;
    if (!is_kept(identity, file) || !name_in_cache(path, identity, file) || whole_file_begin(&whole, path, &unused))
        return;
    const bool is_written = dprintf(whole.descriptor, "%s\n", file->hex) == 65;
    whole_file_end(&whole, is_written ? NULL : "no room", &unused);
}

/* ---- Hashing ---- */

static bool is_same_time(const struct timespec *one, const struct timespec *other)
{
    return one->tv_sec == other->tv_sec && one->tv_nsec == other->tv_nsec;
}

/* Whether nothing was done to a file. *only_status: something was that may have left its bytes alone, as taking its
 * name away does, or that put the time of its bytes back. The file is then, from now on, as it is found. */
static bool is_unchanged(struct hashed_file *file, bool *only_status)
{
    struct stat now;
    const struct stat then = file->opened;
    *only_status = false;
    if (fstat(file->descriptor, &now) || now.st_size != then.st_size || !is_same_time(&now.st_mtim, &then.st_mtim))
        return false;
    *only_status = !is_same_time(&now.st_ctim, &then.st_ctim);
    file->opened = now;
    return !*only_status;
}

static int refuse_changed(struct hashed_file *file)
{
    return error_set(&file->failure, ERROR_BAD_FILE,
                     "%s: changed while it was read; try again when it is whole (files that are "
                     "renamed into place always are)",
                     file->path);
}

static int read_once(struct identity *identity, struct hashed_file *file, uint8_t *buffer)
{
    struct sha256 sha;
    off_t at = 0;
    sha256_start(&sha);
    posix_fadvise(file->descriptor, 0, 0, POSIX_FADV_SEQUENTIAL);
    for (ssize_t bytes; (bytes = pread(file->descriptor, buffer, READ_BYTES, at)) != 0; at += bytes) {
        if (atomic_load(&identity->stopped))
            return error_set(&file->failure, ERROR_CANCELLED, "%s: is not hashed any more", file->path);
        if (bytes < 0)
            return error_set(&file->failure, ERROR_IO, "%s: cannot be read: %s", file->path, strerror(errno));
        sha256_add(&sha, buffer, (size_t)bytes);
    }
    if (at != file->opened.st_size)
        return refuse_changed(file);
    sha256_finish(&sha, file->hex);
    return 0;
}

static int read_all(struct identity *identity, struct hashed_file *file, uint8_t *buffer)
{
    bool again = true;
    for (int reads = 0; again && reads < MOST_READS; reads++) {
        int code = read_once(identity, file, buffer);
        if (code || is_unchanged(file, &again))
            return code;
    }
    return refuse_changed(file);
}

static void hash_file(struct identity *identity, struct hashed_file *file)
{
    if (recall(identity, file))
        return;
    uint8_t *buffer = malloc(READ_BYTES);
    if (!buffer)
        error_set(&file->failure, ERROR_NO_MEMORY, "%s: no memory to hash it", file->path);
    else if (!read_all(identity, file, buffer))
        remember(identity, file);
    free(buffer);
}

static void *hash_files(void *argument)
{
    struct identity *identity = argument;
    for (int i; (i = atomic_fetch_add(&identity->next, 1)) < identity->count;)
        hash_file(identity, &identity->files[i]);
    return NULL;
}

void identity_start(struct identity *identity)
{
    while (identity->thread_count < MOST_THREADS && identity->thread_count < identity->count &&
           !pthread_create(&identity->threads[identity->thread_count], NULL, hash_files, identity))
        identity->thread_count++;
}

static void join(struct identity *identity)
{
    while (identity->thread_count > 0)
        pthread_join(identity->threads[--identity->thread_count], NULL);
}

int identity_wait(struct identity *identity, char hex[65], struct error *error)
{
    struct sha256 sha;
    hash_files(identity);
    join(identity);
    sha256_start(&sha);
    for (int i = 0; i < identity->count; i++) {
        const struct hashed_file *file = &identity->files[i];
        if (file->failure.code)
            return error_set(error, file->failure.code, "%s", file->failure.text);
        sha256_add(&sha, file->role, strlen(file->role));
        sha256_add(&sha, " ", 1);
        sha256_add(&sha, file->hex, 64);
        sha256_add(&sha, "\n", 1);
    }
    sha256_finish(&sha, hex);
    return 0;
}

void identity_close(struct identity *identity)
{
    if (!identity)
        return;
    atomic_store(&identity->stopped, true);
    join(identity);
    for (int i = 0; i < identity->count; i++) {
        if (identity->files[i].descriptor >= 0)
            close(identity->files[i].descriptor);
        free(identity->files[i].role);
        free(identity->files[i].path);
    }
    free(identity->files);
    free(identity->cache_folder);
    free(identity);
}
