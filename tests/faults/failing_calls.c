/* failing_calls.c: a library to be preloaded, with which calls of a program to the system and to nng fail when a test
 * wants them to (failing.h): what opens, reads, writes, syncs, renames, truncates and unlinks files, and what nng is
 * asked for. Each fails as the system says it: a disk without room, one that cannot be read or written, no descriptor
 * left, no memory.
 *
 * Only calls of the program and of SQLite count; how nng moves bytes is its own affair. An answer that cannot be sent
 * ends its connection, as it does where nng fails at that: a client that is told nothing waits for as long as the
 * daemon is well. Any thread.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <nng/nng.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/faults/failing.h"

static bool is_watched(uintptr_t caller)
{
    return failing_is_in(failing_program, caller) || failing_is_in(failing_sqlite, caller);
}

static bool fails(uintptr_t caller, int why)
{
    if (!failing_is_to_fail(caller, is_watched))
        return false;
    errno = why;
    return true;
}

/* A function NAME of the C library that returns `failed` when it is to fail, with errno `why`. */
#define REPLACED(type, name, parameters, arguments, failed, why)                                                     \
    type name parameters                                                                                             \
    {                                                                                                                \
        static type(*_Atomic real) parameters;                                                                       \
        if (fails(FAILING_CALLER, why))                                                                              \
            return failed;                                                                                           \
        if (!real)                                                                                                   \
            real = (type(*) parameters)dlsym(RTLD_NEXT, #name);                                                      \
        return real arguments;                                                                                       \
    }

REPLACED(ssize_t, read, (int file, void *data, size_t bytes), (file, data, bytes), -1, EIO)
REPLACED(ssize_t, pread, (int file, void *data, size_t bytes, off_t at), (file, data, bytes, at), -1, EIO)
REPLACED(ssize_t, pread64, (int file, void *data, size_t bytes, off64_t at), (file, data, bytes, at), -1, EIO)
REPLACED(ssize_t, write, (int file, const void *data, size_t bytes), (file, data, bytes), -1, ENOSPC)
REPLACED(ssize_t, pwrite, (int file, const void *data, size_t bytes, off_t at), (file, data, bytes, at), -1, ENOSPC)
REPLACED(ssize_t, pwrite64, (int file, const void *data, size_t bytes, off64_t at), (file, data, bytes, at), -1,
         ENOSPC)
REPLACED(int, fsync, (int file), (file), -1, EIO)
REPLACED(int, fdatasync, (int file), (file), -1, EIO)
REPLACED(int, ftruncate, (int file, off_t bytes), (file, bytes), -1, EIO)
REPLACED(int, ftruncate64, (int file, off64_t bytes), (file, bytes), -1, EIO)
REPLACED(int, rename, (const char *from, const char *to), (from, to), -1, EIO)
REPLACED(int, renameat, (int from_folder, const char *from, int to_folder, const char *to),
         (from_folder, from, to_folder, to), -1, EIO)
REPLACED(int, unlink, (const char *path), (path), -1, EIO)
REPLACED(int, unlinkat, (int folder, const char *path, int flags), (folder, path, flags), -1, EIO)
REPLACED(int, mkdir, (const char *path, mode_t mode), (path, mode), -1, ENOSPC)
REPLACED(int, mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode), -1, ENOSPC)
REPLACED(FILE *, fopen, (const char *path, const char *mode), (path, mode), NULL, EMFILE)

/* Opens with the mode that is there when a file may be made. */
#define REPLACED_OPEN(name, parameters, arguments)                                                                   \
    int name parameters                                                                                              \
    {                                                                                                                \
        static int(*_Atomic real) parameters;                                                                        \
        va_list rest;                                                                                                \
        va_start(rest, flags);                                                                                       \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                      \
        va_end(rest);                                                                                                \
        if (fails(FAILING_CALLER, EMFILE))                                                                           \
            return -1;                                                                                               \
        if (!real)                                                                                                   \
            real = (int(*) parameters)dlsym(RTLD_NEXT, #name);                                                       \
        return real arguments;                                                                                       \
    }

REPLACED_OPEN(open, (const char *path, int flags, ...), (path, flags, mode))
REPLACED_OPEN(open64, (const char *path, int flags, ...), (path, flags, mode))
REPLACED_OPEN(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))

REPLACED(int, nng_rep0_open, (nng_socket *out), (out), NNG_ENOMEM, 0)
REPLACED(int, nng_ctx_open, (nng_ctx *out, nng_socket socket), (out, socket), NNG_ENOMEM, 0)
REPLACED(int, nng_msg_alloc, (nng_msg **out, size_t bytes), (out, bytes), NNG_ENOMEM, 0)
REPLACED(int, nng_aio_alloc, (nng_aio **out, void (*end)(void *), void *context), (out, end, context), NNG_ENOMEM, 0)
REPLACED(int, nng_pipe_notify, (nng_socket socket, nng_pipe_ev event, nng_pipe_cb callback, void *context),
         (socket, event, callback, context), NNG_ENOMEM, 0)
REPLACED(int, nng_listener_create, (nng_listener *out, nng_socket socket, const char *url), (out, socket, url),
         NNG_ENOMEM, 0)
REPLACED(int, nng_listener_set_size, (nng_listener listener, const char *name, size_t value), (listener, name, value),
         NNG_ENOMEM, 0)
REPLACED(int, nng_listener_set_int, (nng_listener listener, const char *name, int value), (listener, name, value),
         NNG_ENOMEM, 0)
REPLACED(int, nng_listener_start, (nng_listener listener, int flags), (listener, flags), NNG_EADDRINUSE, 0)

static _Atomic uint32_t last_pipe; /* that a request came from */

nng_pipe nng_msg_get_pipe(const nng_msg *msg)
{
    static nng_pipe (*_Atomic real)(const nng_msg *);
    if (!real)
        real = (nng_pipe(*)(const nng_msg *))dlsym(RTLD_NEXT, "nng_msg_get_pipe");
    nng_pipe pipe = real(msg);
    last_pipe = pipe.id;
    return pipe;
}

/* Ends an operation before nng has seen it. */
static void end_at_once(nng_aio *aio)
{
    if (nng_aio_begin(aio))
        nng_aio_finish(aio, NNG_ENOMEM);
}

void nng_ctx_recv(nng_ctx ctx, nng_aio *aio)
{
    static void (*_Atomic real)(nng_ctx, nng_aio *);
    if (!real)
        real = (void (*)(nng_ctx, nng_aio *))dlsym(RTLD_NEXT, "nng_ctx_recv");
    if (fails(FAILING_CALLER, 0))
        end_at_once(aio);
    else
        real(ctx, aio);
}

void nng_ctx_send(nng_ctx ctx, nng_aio *aio)
{
    static void (*_Atomic real)(nng_ctx, nng_aio *);
    if (!real)
        real = (void (*)(nng_ctx, nng_aio *))dlsym(RTLD_NEXT, "nng_ctx_send");
    if (fails(FAILING_CALLER, 0)) {
        nng_pipe_close((nng_pipe){last_pipe});
        end_at_once(aio);
    } else
        real(ctx, aio);
}
