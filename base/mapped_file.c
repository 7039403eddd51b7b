/* mapped_file.c: see mapped_file.h.
 *
 * Mappings are noted in a table, for the handler of SIGBUS: it runs on whatever thread touched a page that is gone, so
 * it takes no lock; and for mapped_files_change. A file beyond the table's size is mapped all the same, without either.
 */
#include "base/mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_GUARDED = 256 };

static struct {
    atomic_uintptr_t begin; /* 0: free; set last */
    atomic_uintptr_t end;
    atomic_bool lost;
    char *path; /* NULL: no memory for it */
    const void *owner;
    struct stat opened; /* what the system said of the file when it was mapped */
} guarded[MOST_GUARDED];
static pthread_mutex_t guarded_lock = PTHREAD_MUTEX_INITIALIZER; /* for all but the handler */
static _Thread_local const void *owner_of_new; /* of what this thread maps */

const void *mapped_files_belong_to(const void *owner)
{
    const void *before = owner_of_new;
    owner_of_new = owner;
    return before;
}

static void note(const struct mapped_file *mapped, const char *path, const struct stat *opened)
{
    pthread_mutex_lock(&guarded_lock);
    for (int i = 0; i < MOST_GUARDED; i++)
        if (atomic_load(&guarded[i].begin) == 0) {
            guarded[i].path = strdup(path);
            guarded[i].owner = owner_of_new;
            guarded[i].opened = *opened;
            atomic_store(&guarded[i].lost, false);
            atomic_store(&guarded[i].end, (uintptr_t)mapped->data + (uintptr_t)mapped->bytes);
            atomic_store(&guarded[i].begin, (uintptr_t)mapped->data);
            break;
        }
    pthread_mutex_unlock(&guarded_lock);
}

static void forget(const struct mapped_file *mapped)
{
    pthread_mutex_lock(&guarded_lock);
    for (int i = 0; i < MOST_GUARDED; i++)
        if (atomic_load(&guarded[i].begin) == (uintptr_t)mapped->data) {
            atomic_store(&guarded[i].begin, 0);
            free(guarded[i].path);
            guarded[i].path = NULL;
        }
    pthread_mutex_unlock(&guarded_lock);
}

/* Put zeros in the place of the page that is gone and of what follows it in the file. */
static void on_bus_error(int number, siginfo_t *info, void *context)
{
    (void)context;
    int saved = errno;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)info->si_addr / page * page;
    for (int i = 0; i < MOST_GUARDED; i++) {
        uintptr_t begin = atomic_load(&guarded[i].begin), end = atomic_load(&guarded[i].end);
        if (begin == 0 || at < begin || at >= end)
            continue;
        if (mmap((void *)at, end - at, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
            break;
        atomic_store(&guarded[i].lost, true);
        errno = saved;
        return;
    }
    signal(number, SIG_DFL); /* not ours: when this returns it comes again */
}

void mapped_files_guard(void)
{
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, NULL);
}

static bool is_mapped(int i, const void *owner)
{
    return atomic_load(&guarded[i].begin) != 0 && guarded[i].owner == owner;
}

int mapped_files_check(const void *owner, struct error *error)
{
    int result = 0;
    pthread_mutex_lock(&guarded_lock);
    for (int i = 0; i < MOST_GUARDED && result == 0; i++)
        if (is_mapped(i, owner) && atomic_load(&guarded[i].lost))
            result =
                error_set(error, ERROR_BAD_FILE,
                          "%s: was cut off, or can no longer be read, while it was in use; put it back and try again",
                          guarded[i].path ? guarded[i].path : "a mapped file");
    pthread_mutex_unlock(&guarded_lock);
    return result;
}

/* What became of one file. A name that leads nowhere any more does no harm: the mapping keeps what was there. */
static enum mapped_change change_of(const char *path, const struct stat *opened)
{
    struct stat now;
    if (!path || stat(path, &now) != 0)
        return MAPPED_SAME;
    if (now.st_dev != opened->st_dev || now.st_ino != opened->st_ino)
        return MAPPED_REPLACED;
    bool is_same = now.st_size == opened->st_size && now.st_mtim.tv_sec == opened->st_mtim.tv_sec &&
                   now.st_mtim.tv_nsec == opened->st_mtim.tv_nsec;
    return is_same ? MAPPED_SAME : MAPPED_REWRITTEN;
}

enum mapped_change mapped_files_change(const void *owner, struct error *why)
{
    enum mapped_change worst = MAPPED_SAME;
    pthread_mutex_lock(&guarded_lock);
    for (int i = 0; i < MOST_GUARDED; i++) {
        if (!is_mapped(i, owner))
            continue;
        enum mapped_change change = change_of(guarded[i].path, &guarded[i].opened);
        if (change <= worst)
            continue;
        worst = change;
        error_set(why, ERROR_BAD_FILE, change == MAPPED_REPLACED ? "%s: was replaced while it was in use"
                  : "%s: was rewritten while it was in use", guarded[i].path);
    }
    pthread_mutex_unlock(&guarded_lock);
    return worst;
}

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
    } else {
        mapped->data = (const uint8_t *)""; /* not NULL, to which C adds not even nothing */
    }
    close(fd);
    if (mapped->bytes > 0)
        note(mapped, path, &status);
    return result;
}

void mapped_file_close(struct mapped_file *mapped)
{
    if (mapped->bytes > 0) {
        forget(mapped);
        munmap((void *)(uintptr_t)mapped->data, (size_t)mapped->bytes);
    }
    *mapped = (struct mapped_file){0};
}

void mapped_file_prefetch(const void *data, uint64_t bytes)
{
    uintptr_t begin = (uintptr_t)data, page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t aligned = begin / page * page;
    madvise((void *)aligned, (size_t)(begin - aligned + bytes), MADV_WILLNEED);
}

void mapped_file_let_go(const void *data, uint64_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)data + page - 1) / page * page,
              end = ((uintptr_t)data + (uintptr_t)bytes) / page * page;
    if (begin < end)
        madvise((void *)begin, (size_t)(end - begin), MADV_DONTNEED);
}
