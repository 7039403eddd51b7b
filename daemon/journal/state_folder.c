/* state_folder.c: see state_folder.h. */
#include "daemon/journal/state_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "daemon/log.h"

struct state_folder {
    char *path;
    int descriptor, lock; /* -1: not open */
};

/* Numbers of statfs(2) and of the kernel's sources; each file system counts as one of a network. */
static const struct {
    unsigned long magic;
    const char *name;
} network_file_systems[] = {
    {0x6969, "NFS"},       {0xff534d42, "CIFS"},   {0xfe534d42, "SMB2"}, {0x517b, "SMB"},
    {0x01021997, "9P"},    {0x00c36400, "Ceph"},   {0x5346414f, "AFS"},  {0x6b414653, "AFS"},
    {0x73757245, "Coda"},  {0x0bd00bd0, "Lustre"}, {0x01161970, "GFS2"}, {0x7461636f, "OCFS2"},
    {0x47504653, "GPFS"},  {0x19830326, "BeeGFS"}, {0x564c, "NCP"},      {0x20030528, "OrangeFS"},
    {0xaad7aaea, "PanFS"},
};

static int check_file_system(const struct state_folder *folder, struct error *error)
{
    struct statfs info;
    if (fstatfs(folder->descriptor, &info) != 0)
        return error_set(error, ERROR_IO, "state folder %s: %s", folder->path, strerror(errno));
    for (size_t i = 0; i < sizeof network_file_systems / sizeof network_file_systems[0]; i++)
        if ((unsigned long)info.f_type == network_file_systems[i].magic)
            return error_set(error, ERROR_UNSUPPORTED,
                             "state folder %s: lies on %s, a network file system, where neither locks nor "
                             "fsync can be relied on; give --state a folder on a disk of this machine",
                             folder->path, network_file_systems[i].name);
    return 0;
}

/* A folder that was made lasts when its own folder knows it. */
static void sync_parent(const struct state_folder *folder)
{
    const int parent = openat(folder->descriptor, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent >= 0 && fsync(parent) != 0)
        log_debug(NULL, "state folder %s: %s", folder->path, strerror(errno));
    if (parent >= 0)
        close(parent);
}

static int open_folder(struct state_folder *folder, struct error *error)
{
    struct stat info;
    if (mkdir(folder->path, 0700) != 0 && errno != EEXIST)
        return error_set(error, ERROR_IO, "state folder %s: cannot be made: %s", folder->path, strerror(errno));
    folder->descriptor = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder->descriptor < 0 || fstat(folder->descriptor, &info) != 0)
        return error_set(error, ERROR_IO, "state folder %s: %s", folder->path, strerror(errno));
    if (info.st_uid != geteuid())
        return error_set(error, ERROR_IO, "state folder %s: belongs to another user (%u)", folder->path,
                         (unsigned)info.st_uid);
    if ((info.st_mode & 077) != 0 && fchmod(folder->descriptor, 0700) != 0)
        return error_set(error, ERROR_IO, "state folder %s: is open to others, and its mode cannot be made 0700: %s",
                         folder->path, strerror(errno));
    sync_parent(folder);
    return 0;
}

/* The lock is a file of its own, so that nothing else in the folder is ever replaced under it. */
static int lock_folder(struct state_folder *folder, struct error *error)
{
    folder->lock = openat(folder->descriptor, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (folder->lock < 0)
        return error_set(error, ERROR_IO, "state folder %s: cannot open its lock: %s", folder->path, strerror(errno));
    if (flock(folder->lock, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return error_set(error, ERROR_BUSY,
                         "state folder %s: another lanced has it; stop that one or give another --state", folder->path);
    return error_set(error, ERROR_IO, "state folder %s: cannot be locked: %s", folder->path, strerror(errno));
}

int state_folder_open(struct state_folder **out, const char *path, struct error *error)
{
    *out = NULL;
    struct state_folder *folder = calloc(1, sizeof *folder);
    if (folder) {
        folder->descriptor = folder->lock = -1;
        folder->path = strdup(path);
    }
    int code =
        folder && folder->path ? 0 : error_set(error, ERROR_NO_MEMORY, "state folder: out of memory");
    if (code == 0)
        code = open_folder(folder, error);
    if (code == 0)
        code = check_file_system(folder, error);
    if (code == 0)
        code = lock_folder(folder, error);
    if (code != 0) {
        state_folder_close(folder);
        return code;
    }
    *out = folder;
    return 0;
}

void state_folder_close(struct state_folder *folder)
{
    if (!folder)
        return;
    if (folder->lock >= 0)
        close(folder->lock);
    if (folder->descriptor >= 0)
        close(folder->descriptor);
    free(folder->path);
    free(folder);
}

const char *state_folder_path(const struct state_folder *folder)
{
    return folder->path;
}

int state_folder_descriptor(const struct state_folder *folder)
{
    return folder->descriptor;
}

int state_folder_check(const struct state_folder *folder, uint64_t bytes, struct error *error)
{
    struct stat opened, named;
    struct statvfs space;
    if (fstat(folder->descriptor, &opened) != 0 || stat(folder->path, &named) != 0 || named.st_dev != opened.st_dev ||
        named.st_ino != opened.st_ino || opened.st_nlink == 0)
        return error_set(error, ERROR_IO,
                         "state folder %s: is gone, or another folder has its name; no job can be accepted until "
                         "lanced is started again",
                         folder->path);
    if (fstatvfs(folder->descriptor, &space) != 0)
        return error_set(error, ERROR_IO, "state folder %s: %s", folder->path, strerror(errno));
    if (space.f_flag & ST_RDONLY)
        return error_set(error, ERROR_IO, "state folder %s: its file system is read-only; no job can be accepted",
                         folder->path);
    const uint64_t free_bytes = (uint64_t)space.f_bavail * space.f_frsize;
    if (free_bytes >= STATE_FOLDER_RESERVE_BYTES && free_bytes - STATE_FOLDER_RESERVE_BYTES >= bytes)
        return 0;
    return error_set(error, ERROR_IO,
                     "state folder %s: its disk has %.1f MB free; the job needs %.1f MB, and %.1f MB are kept for the "
                     "ends of others",
                     folder->path, (double)free_bytes / 1e6, (double)bytes / 1e6, STATE_FOLDER_RESERVE_BYTES / 1e6);
}
