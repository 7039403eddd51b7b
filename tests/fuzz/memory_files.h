/* memory_files.h: SQLite's files in memory, for targets that open a database for each input: a sqlite3_vfs that is the
 * default one of the program, so that what is tested opens its database as always. Locks are SQLite's, between the
 * connections of this program; one mutex guards all. Whatever is no file of a database stays on the disk.
 */
#ifndef TESTS_FUZZ_MEMORY_FILES_H
#define TESTS_FUZZ_MEMORY_FILES_H

#include <limits.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MEMORY_FILES = 8, MEMORY_SHARED = 4, MEMORY_SHARED_BYTES = 32 << 10, MEMORY_FILE_BYTES = 16 << 20 };

struct memory_file {
    char name[PATH_MAX]; /* "": free */
    uint8_t *data;
    sqlite3_int64 bytes, room;
    int handles;
    int readers;               /* locks of SQLite's rollback journal: handles with SHARED, */
    const void *writer;        /* and the one with more */
    int mapped;                /* handles that use the shared memory of the log */
    uint8_t *shared[MEMORY_SHARED];
    int slot_readers[SQLITE_SHM_NLOCK];
    const void *slot_writer[SQLITE_SHM_NLOCK];
};

struct memory_handle {
    sqlite3_file base; /* first: SQLite's */
    struct memory_file *file;
    int level; /* SQLITE_LOCK_ */
    int is_mapped, is_temporary;
    unsigned slots_read, slots_written; /* bits */
};

static struct memory_file memory_files[MEMORY_FILES];
static pthread_mutex_t memory_lock = PTHREAD_MUTEX_INITIALIZER;

static inline struct memory_file *memory_find(const char *name)
{
    for (int i = 0; i < MEMORY_FILES; i++)
        if (strcmp(memory_files[i].name, name) == 0)
            return &memory_files[i];
    return NULL;
}

static inline int memory_resize(struct memory_file *file, sqlite3_int64 bytes)
{
    if (bytes > MEMORY_FILE_BYTES)
        return SQLITE_FULL;
    if (bytes > file->room) {
        const sqlite3_int64 room = bytes > 1 << 18 ? bytes * 2 : 1 << 19;
        uint8_t *more = realloc(file->data, (size_t)room);
        if (!more)
            return SQLITE_NOMEM;
        file->data = more;
        file->room = room;
    }
    if (bytes > file->bytes)
        memset(file->data + file->bytes, 0, (size_t)(bytes - file->bytes));
    file->bytes = bytes;
    return SQLITE_OK;
}

/* --- A file --------------------------------------------------------------------------- */

static inline int memory_shm_unmap(sqlite3_file *base, int gone)
{
    struct memory_handle *handle = (struct memory_handle *)base;
    (void)gone;
    pthread_mutex_lock(&memory_lock);
    if (handle->is_mapped && --handle->file->mapped == 0)
        for (int i = 0; i < MEMORY_SHARED && handle->file->shared[i]; i++)
            memset(handle->file->shared[i], 0, MEMORY_SHARED_BYTES);
    handle->is_mapped = 0;
    pthread_mutex_unlock(&memory_lock);
    return SQLITE_OK;
}

static inline int memory_unlock(sqlite3_file *base, int level)
{
    struct memory_handle *handle = (struct memory_handle *)base;
    pthread_mutex_lock(&memory_lock);
    if (handle->file->writer == handle && level <= SQLITE_LOCK_SHARED)
        handle->file->writer = NULL;
    if (handle->level >= SQLITE_LOCK_SHARED && level == SQLITE_LOCK_NONE)
        handle->file->readers--;
    handle->level = level < handle->level ? level : handle->level;
    pthread_mutex_unlock(&memory_lock);
    return SQLITE_OK;
}

static inline int memory_take_lock(sqlite3_file *base, int level)
{
    struct memory_handle *handle = (struct memory_handle *)base;
    struct memory_file *file = handle->file;
    int result = SQLITE_OK;
    pthread_mutex_lock(&memory_lock);
    if (level <= handle->level) {
        /* it has it */
    } else if (level == SQLITE_LOCK_SHARED) {
        /* PENDING and EXCLUSIVE keep new readers out, RESERVED does not. */
        const struct memory_handle *writer = file->writer;
        if (writer && writer->level >= SQLITE_LOCK_PENDING)
            result = SQLITE_BUSY;
        else
            file->readers++;
    } else if (file->writer && file->writer != handle) {
        result = SQLITE_BUSY;
    } else {
        file->writer = handle;
        if (level == SQLITE_LOCK_EXCLUSIVE && file->readers > 1) {
            handle->level = SQLITE_LOCK_PENDING;
            result = SQLITE_BUSY;
        }
    }
    if (result == SQLITE_OK && level > handle->level)
        handle->level = level;
    pthread_mutex_unlock(&memory_lock);
    return result;
}

static inline int memory_close(sqlite3_file *base)
{
    struct memory_handle *handle = (struct memory_handle *)base;
    memory_shm_unmap(base, 0);
    memory_unlock(base, SQLITE_LOCK_NONE);
    pthread_mutex_lock(&memory_lock);
    handle->file->handles--;
    if (handle->is_temporary) {
        handle->file->name[0] = '\0';
        handle->file->bytes = 0;
    }
    pthread_mutex_unlock(&memory_lock);
    return SQLITE_OK;
}

static inline int memory_read(sqlite3_file *base, void *to, int bytes, sqlite3_int64 at)
{
    const struct memory_file *file = ((struct memory_handle *)base)->file;
    pthread_mutex_lock(&memory_lock);
    const sqlite3_int64 left = at < file->bytes ? file->bytes - at : 0;
    const int there = left < bytes ? (int)left : bytes;
    if (there > 0)
        memcpy(to, file->data + at, (size_t)there);
    pthread_mutex_unlock(&memory_lock);
    memset((char *)to + there, 0, (size_t)(bytes - there));
    return there == bytes ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static inline int memory_write(sqlite3_file *base, const void *from, int bytes, sqlite3_int64 at)
{
    struct memory_file *file = ((struct memory_handle *)base)->file;
    pthread_mutex_lock(&memory_lock);
    const int result = at + bytes > file->bytes ? memory_resize(file, at + bytes) : SQLITE_OK;
    if (result == SQLITE_OK)
        memcpy(file->data + at, from, (size_t)bytes);
    pthread_mutex_unlock(&memory_lock);
    return result;
}

static inline int memory_truncate(sqlite3_file *base, sqlite3_int64 bytes)
{
    pthread_mutex_lock(&memory_lock);
    const int result = memory_resize(((struct memory_handle *)base)->file, bytes);
    pthread_mutex_unlock(&memory_lock);
    return result;
}

static inline int memory_sync(sqlite3_file *base, int flags)
{
    (void)base;
    (void)flags;
    return SQLITE_OK;
}

static inline int memory_size(sqlite3_file *base, sqlite3_int64 *bytes)
{
    *bytes = ((struct memory_handle *)base)->file->bytes;
    return SQLITE_OK;
}

static inline int memory_is_reserved(sqlite3_file *base, int *is_reserved)
{
    *is_reserved = ((struct memory_handle *)base)->file->writer != NULL;
    return SQLITE_OK;
}

static inline int memory_control(sqlite3_file *base, int what, void *value)
{
    (void)base;
    (void)what;
    (void)value;
    return SQLITE_NOTFOUND;
}

static inline int memory_sector(sqlite3_file *base)
{
    (void)base;
    return 512;
}

static inline int memory_character(sqlite3_file *base)
{
    (void)base;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static inline int memory_shm_map(sqlite3_file *base, int region, int bytes, int extend, void volatile **out)
{
    struct memory_handle *handle = (struct memory_handle *)base;
    int result = SQLITE_OK;
    (void)extend;
    *out = NULL;
    if (region >= MEMORY_SHARED || bytes != MEMORY_SHARED_BYTES)
        return SQLITE_IOERR_SHMMAP;
    pthread_mutex_lock(&memory_lock);
    for (int i = 0; i <= region && result == SQLITE_OK; i++)
        if (!handle->file->shared[i] && !(handle->file->shared[i] = calloc(1, MEMORY_SHARED_BYTES)))
            result = SQLITE_NOMEM;
    if (!handle->is_mapped && result == SQLITE_OK)
        handle->file->mapped++;
    handle->is_mapped |= result == SQLITE_OK;
    *out = handle->file->shared[region];
    pthread_mutex_unlock(&memory_lock);
    return result;
}

static inline int memory_shm_lock(sqlite3_file *base, int first, int count, int flags)
{
    struct memory_handle *handle = (struct memory_handle *)base;
    struct memory_file *file = handle->file;
    const unsigned bits = ((1u << count) - 1) << first;
    int result = SQLITE_OK;
    pthread_mutex_lock(&memory_lock);
    for (int i = first; i < first + count; i++)
        if ((flags & SQLITE_SHM_LOCK) && ((file->slot_writer[i] && file->slot_writer[i] != handle) ||
                                          ((flags & SQLITE_SHM_EXCLUSIVE) &&
                                           file->slot_readers[i] > (int)(handle->slots_read >> i & 1))))
            result = SQLITE_BUSY;
    for (int i = first; i < first + count && result == SQLITE_OK; i++) {
        if (flags & SQLITE_SHM_EXCLUSIVE)
            file->slot_writer[i] = flags & SQLITE_SHM_LOCK ? handle : NULL;
        else if (flags & SQLITE_SHM_LOCK)
            file->slot_readers[i] += !(handle->slots_read >> i & 1);
        else
            file->slot_readers[i] -= handle->slots_read >> i & 1;
    }
    unsigned *held = flags & SQLITE_SHM_EXCLUSIVE ? &handle->slots_written : &handle->slots_read;
    if (result == SQLITE_OK)
        *held = flags & SQLITE_SHM_LOCK ? *held | bits : *held & ~bits;
    pthread_mutex_unlock(&memory_lock);
    return result;
}

static inline void memory_barrier(sqlite3_file *base)
{
    (void)base;
    __sync_synchronize();
}

/* --- Names ---------------------------------------------------------------------------- */

static inline int memory_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *base, int flags, int *flags_out)
{
    static const sqlite3_io_methods methods = {
        .iVersion = 2, .xClose = memory_close, .xRead = memory_read, .xWrite = memory_write,
        .xTruncate = memory_truncate, .xSync = memory_sync, .xFileSize = memory_size, .xLock = memory_take_lock,
        .xUnlock = memory_unlock, .xCheckReservedLock = memory_is_reserved, .xFileControl = memory_control,
        .xSectorSize = memory_sector, .xDeviceCharacteristics = memory_character, .xShmMap = memory_shm_map,
        .xShmLock = memory_shm_lock, .xShmBarrier = memory_barrier, .xShmUnmap = memory_shm_unmap};
    static int temporary;
    struct memory_handle *handle = (struct memory_handle *)base;
    char made[32];
    (void)vfs;
    *handle = (struct memory_handle){.is_temporary = !name};
    pthread_mutex_lock(&memory_lock);
    if (!name) {
        snprintf(made, sizeof made, "temporary %d", ++temporary);
        name = made;
    }
    handle->file = memory_find(name);
    if (!handle->file && (handle->file = memory_find("")))
        snprintf(handle->file->name, sizeof handle->file->name, "%s", name);
    if (handle->file) {
        handle->file->handles++;
        handle->base.pMethods = &methods;
    }
    pthread_mutex_unlock(&memory_lock);
    if (flags_out)
        *flags_out = flags;
    return handle->file ? SQLITE_OK : SQLITE_CANTOPEN;
}

static inline int memory_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)vfs;
    (void)sync;
    pthread_mutex_lock(&memory_lock);
    struct memory_file *file = memory_find(name);
    if (file && file->handles > 0)
        abort(); /* nobody deletes what another one uses */
    if (file) {
        file->name[0] = '\0';
        file->bytes = 0;
    }
    pthread_mutex_unlock(&memory_lock);
    return file ? SQLITE_OK : SQLITE_IOERR_DELETE_NOENT;
}

static inline int memory_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
    (void)vfs;
    (void)flags;
    pthread_mutex_lock(&memory_lock);
    *out = memory_find(name) != NULL;
    pthread_mutex_unlock(&memory_lock);
    return SQLITE_OK;
}

static inline int memory_full_name(sqlite3_vfs *vfs, const char *name, int bytes, char *out)
{
    (void)vfs;
    snprintf(out, (size_t)bytes, "%s", name);
    return SQLITE_OK;
}

/* --- SQLite's own memory ---------------------------------------------------------------- */
/* The C library's, past a sanitizer: SQLite asks for hundreds of pieces to read a schema. Before each stands its size.
 */

enum { MEMORY_HEAD = 16 };

extern void *__libc_malloc(size_t bytes);
extern void *__libc_realloc(void *memory, size_t bytes);
extern void __libc_free(void *memory);

static inline void *memory_with_head(void *block, int bytes)
{
    if (!block)
        return NULL;
    memcpy(block, &bytes, sizeof bytes);
    return (char *)block + MEMORY_HEAD;
}

static inline void *memory_malloc(int bytes)
{
    return memory_with_head(__libc_malloc((size_t)bytes + MEMORY_HEAD), bytes);
}

static inline void memory_free(void *memory)
{
    __libc_free((char *)memory - MEMORY_HEAD);
}

static inline void *memory_realloc(void *memory, int bytes)
{
    return memory_with_head(__libc_realloc((char *)memory - MEMORY_HEAD, (size_t)bytes + MEMORY_HEAD), bytes);
}

static inline int memory_bytes(void *memory)
{
    int bytes;
    memcpy(&bytes, (char *)memory - MEMORY_HEAD, sizeof bytes);
    return bytes;
}

static inline int memory_round(int bytes)
{
    return (bytes + 7) & ~7;
}

static inline int memory_begin(void *context)
{
    (void)context;
    return SQLITE_OK;
}

static inline void memory_end(void *context)
{
    (void)context;
}

/* SQLite takes memory past a sanitizer, for targets whose every input is a schema to be read: that a text is used after
 * SQLite took it back is found by others. Before memory_files_begin. */
static inline void memory_files_unwatched(void)
{
    static const sqlite3_mem_methods methods = {
        .xMalloc = memory_malloc, .xFree = memory_free, .xRealloc = memory_realloc, .xSize = memory_bytes,
        .xRoundup = memory_round, .xInit = memory_begin, .xShutdown = memory_end};
    sqlite3_config(SQLITE_CONFIG_MALLOC, &methods);
}

/* Before anything is opened. SQLite gets its pages from one piece of memory: that nobody writes beside them is not
 * looked for here. */
static inline void memory_files_begin(void)
{
    enum { PAGES = 512, PAGE_BYTES = 4096 + 256 };
    static _Alignas(16) char pages[PAGES][PAGE_BYTES];
    static sqlite3_vfs vfs;
    sqlite3_config(SQLITE_CONFIG_PAGECACHE, pages, PAGE_BYTES, PAGES);
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    const sqlite3_vfs *usual = sqlite3_vfs_find(NULL);
    vfs = *usual; /* its clock and random numbers */
    vfs.szOsFile = (int)sizeof(struct memory_handle);
    vfs.zName = "memory files";
    vfs.pNext = NULL;
    vfs.xOpen = memory_open;
    vfs.xDelete = memory_delete;
    vfs.xAccess = memory_access;
    vfs.xFullPathname = memory_full_name;
    if (sqlite3_vfs_register(&vfs, 1) != SQLITE_OK)
        abort();
}

/* A database of small pages at that name, which is empty otherwise: there is less to be copied. */
static inline void memory_files_make_small(const char *name)
{
    sqlite3 *database;
    if (sqlite3_open(name, &database) != SQLITE_OK ||
        sqlite3_exec(database, "PRAGMA page_size = 512; VACUUM", NULL, NULL, NULL) != SQLITE_OK)
        abort();
    sqlite3_close(database);
}

/* Nothing is open: all files are gone. */
static inline void memory_files_forget(void)
{
    for (int i = 0; i < MEMORY_FILES; i++) {
        if (memory_files[i].handles > 0)
            abort();
        memory_files[i].name[0] = '\0';
        memory_files[i].bytes = 0;
    }
}

/* A file with these bytes. */
static inline void memory_files_put(const char *name, const void *data, size_t bytes)
{
    struct memory_file *file = memory_find("");
    if (!file || memory_resize(file, (sqlite3_int64)bytes) != SQLITE_OK)
        abort();
    snprintf(file->name, sizeof file->name, "%s", name);
    memcpy(file->data, data, bytes);
}

#endif
