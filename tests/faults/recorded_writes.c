/* recorded_writes.c: a library to be preloaded, which writes down what a program does to the files of a folder, in
 * order: what it writes where, what it fsyncs, makes, renames and unlinks. tests/support/power_loss.py makes of that
 * what a disk may hold after any moment at which the power went.
 *
 * RECORDED_WRITES_FOLDER names the folder, RECORDED_WRITES_LOG the file to write to. What is only mapped (SQLite's
 * "-shm", which means nothing after a crash) is left out. Any thread.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_FILES = 1024 };

/* As tests/support/power_loss.py has it; then come `name_bytes` and `other_bytes` of names, and `bytes` of data. */
struct entry {
    uint64_t what;         /* one of "CWTSRU": made, written, truncated, synced, renamed, unlinked */
    uint64_t file, folder; /* inode numbers */
    uint64_t offset, bytes;
    uint64_t name_bytes, other_bytes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder;
static int record = -1;
static bool is_ours[MOST_FILES]; /* by descriptor: a file or folder of the folder */

static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t), (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t), (*real_fsync)(int), (*real_fdatasync)(int);
static int (*real_renameat)(int, const char *, int, const char *), (*real_unlinkat)(int, const char *, int);
static int (*real_mkdirat)(int, const char *, mode_t);

__attribute__((constructor)) static void begin(void)
{
    *(void **)&real_openat = dlsym(RTLD_NEXT, "openat");
    *(void **)&real_close = dlsym(RTLD_NEXT, "close");
    *(void **)&real_write = dlsym(RTLD_NEXT, "write");
    *(void **)&real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    *(void **)&real_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
    *(void **)&real_fsync = dlsym(RTLD_NEXT, "fsync");
    *(void **)&real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    *(void **)&real_renameat = dlsym(RTLD_NEXT, "renameat");
    *(void **)&real_unlinkat = dlsym(RTLD_NEXT, "unlinkat");
    *(void **)&real_mkdirat = dlsym(RTLD_NEXT, "mkdirat");
    const char *log = getenv("RECORDED_WRITES_LOG");
    folder = getenv("RECORDED_WRITES_FOLDER");
    if (folder && log)
        record = real_openat(AT_FDCWD, log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

static void put(const void *data, size_t bytes)
{
    if (real_write(record, data, bytes) != (ssize_t)bytes)
        abort();
}

/* With the lock held. */
static void note(struct entry entry, const char *name, const char *other, const void *data)
{
    entry.name_bytes = name ? strlen(name) : 0;
    entry.other_bytes = other ? strlen(other) : 0;
    put(&entry, sizeof entry);
    put(name, entry.name_bytes);
    put(other, entry.other_bytes);
    put(data, data ? entry.bytes : 0);
}

static bool is_known(int file)
{
    return record >= 0 && file >= 0 && file < MOST_FILES && is_ours[file];
}

static bool is_inside(int at, const char *path)
{
    const size_t length = strlen(path);
    if (record < 0 || (length >= 4 && strcmp(path + length - 4, "-shm") == 0))
        return false;
    return path[0] == '/' || at == AT_FDCWD ? strncmp(path, folder, strlen(folder)) == 0 : is_known(at);
}

static uint64_t inode_of(int file)
{
    struct stat info;
    return fstat(file, &info) == 0 ? info.st_ino : 0;
}

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The inode of the folder that a path is in. */
static uint64_t folder_of(int at, const char *path)
{
    struct stat info;
    char parent[4096];
    const char *name = name_of(path);
    snprintf(parent, sizeof parent, "%.*s", name > path ? (int)(name - path) : 1, name > path ? path : ".");
    return fstatat(at, parent, &info, 0) == 0 ? info.st_ino : 0;
}

static bool exists(int at, const char *path)
{
    struct stat info;
    return fstatat(at, path, &info, AT_SYMLINK_NOFOLLOW) == 0;
}

static int open_noted(int at, const char *path, int flags, mode_t mode)
{
    if (!is_inside(at, path))
        return real_openat(at, path, flags, mode);
    pthread_mutex_lock(&lock);
    const bool is_new = (flags & O_CREAT) && !exists(at, path);
    int file = real_openat(at, path, flags, mode);
    if (file >= 0 && file < MOST_FILES) {
        is_ours[file] = true;
        if (is_new)
            note((struct entry){.what = 'C', .file = inode_of(file), .folder = folder_of(at, path)}, name_of(path),
                 NULL, NULL);
        else if (flags & O_TRUNC)
            note((struct entry){.what = 'T', .file = inode_of(file)}, NULL, NULL, NULL);
    }
    pthread_mutex_unlock(&lock);
    return file;
}

static mode_t mode_of(int flags, va_list arguments)
{
    return flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_noted(AT_FDCWD, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_noted(at, path, flags, mode);
}

int open64(const char *, int, ...) __attribute__((alias("open")));
int openat64(int, const char *, int, ...) __attribute__((alias("openat")));

int close(int file)
{
    if (is_known(file))
        is_ours[file] = false;
    return real_close(file);
}

ssize_t pwrite(int file, const void *data, size_t bytes, off_t offset)
{
    if (!is_known(file))
        return real_pwrite(file, data, bytes, offset);
    pthread_mutex_lock(&lock);
    ssize_t written = real_pwrite(file, data, bytes, offset);
    if (written > 0)
        note(
            (struct entry){.what = 'W', .file = inode_of(file), .offset = (uint64_t)offset, .bytes = (uint64_t)written},
            NULL, NULL, data);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite64(int, const void *, size_t, off_t) __attribute__((alias("pwrite")));

ssize_t write(int file, const void *data, size_t bytes)
{
    if (!is_known(file))
        return real_write(file, data, bytes);
    pthread_mutex_lock(&lock);
    ssize_t written = real_write(file, data, bytes);
    if (written > 0)
        note((struct entry){.what = 'W',
                            .file = inode_of(file),
                            .offset = (uint64_t)(lseek(file, 0, SEEK_CUR) - written),
                            .bytes = (uint64_t)written},
             NULL, NULL, data);
    pthread_mutex_unlock(&lock);
    return written;
}

int ftruncate(int file, off_t bytes)
{
    if (!is_known(file))
        return real_ftruncate(file, bytes);
    pthread_mutex_lock(&lock);
    int result = real_ftruncate(file, bytes);
    if (result == 0)
        note((struct entry){.what = 'T', .file = inode_of(file), .offset = (uint64_t)bytes}, NULL, NULL, NULL);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate64(int, off_t) __attribute__((alias("ftruncate")));

static int sync_noted(int file, int (*sync)(int))
{
    if (!is_known(file))
        return sync(file);
    pthread_mutex_lock(&lock);
    int result = sync(file);
    if (result == 0)
        note((struct entry){.what = 'S', .file = inode_of(file)}, NULL, NULL, NULL);
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int file)
{
    return sync_noted(file, real_fsync);
}

int fdatasync(int file)
{
    return sync_noted(file, real_fdatasync);
}

int renameat(int at, const char *path, int other_at, const char *other)
{
    if (!is_inside(at, path))
        return real_renameat(at, path, other_at, other);
    pthread_mutex_lock(&lock);
    int result = real_renameat(at, path, other_at, other);
    if (result == 0)
        note((struct entry){.what = 'R', .folder = folder_of(at, path)}, name_of(path), name_of(other), NULL);
    pthread_mutex_unlock(&lock);
    return result;
}

int unlinkat(int at, const char *path, int flags)
{
    if (!is_inside(at, path))
        return real_unlinkat(at, path, flags);
    pthread_mutex_lock(&lock);
    int result = real_unlinkat(at, path, flags);
    if (result == 0)
        note((struct entry){.what = 'U', .folder = folder_of(at, path)}, name_of(path), NULL, NULL);
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int mkdirat(int at, const char *path, mode_t mode)
{
    struct stat info;
    if (!is_inside(at, path))
        return real_mkdirat(at, path, mode);
    pthread_mutex_lock(&lock);
    int result = real_mkdirat(at, path, mode);
    if (result == 0 && fstatat(at, path, &info, 0) == 0)
        note((struct entry){.what = 'C', .file = info.st_ino, .folder = folder_of(at, path), .offset = 1},
             name_of(path), NULL, NULL);
    pthread_mutex_unlock(&lock);
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}
