/* failing_memory.c: a library to be preloaded, with which allocations of a program fail when a test wants them to
 * (failing.h).
 *
 * Never failed: what LeakSanitizer needs where a thread begins; what libnng allocates on its own threads for its own
 * connections, which lanced hears nothing of (nng drops such a connection, and its client asks again); and what is
 * allocated while nothing is watched. Any thread.
 */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <stddef.h>
#include <stdlib.h>

#include "tests/faults/failing.h"

enum { OWN_FRAMES = 3 /* of these files, on top of is_watched's */, NNG_FRAMES = 16 };
enum { NEAR_FRAMES = 1 + OWN_FRAMES + 4 /* of is_for_sanitizer's */ };

static void *(*real_malloc)(size_t), *(*real_calloc)(size_t, size_t), *(*real_realloc)(void *, size_t);
static void *(*real_aligned_alloc)(size_t, size_t);
static int (*real_posix_memalign)(void **, size_t, size_t);

__attribute__((constructor)) static void find_real(void)
{
    bool was_inside = failing_enter();
    *(void **)&real_malloc = dlsym(RTLD_NEXT, "malloc");
    *(void **)&real_calloc = dlsym(RTLD_NEXT, "calloc");
    *(void **)&real_realloc = dlsym(RTLD_NEXT, "realloc");
    *(void **)&real_aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
    *(void **)&real_posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
    failing_leave(was_inside);
}

/* Whether LeakSanitizer asked for it, through the C library: without it, it ends the process. */
static __attribute__((noinline)) bool is_for_sanitizer(void)
{
    void *frames[NNG_FRAMES];
    const int count = failing_lsan.end != 0 ? backtrace(frames, NEAR_FRAMES) : 0; /* every thread begins in it */
    for (int i = 0; i < count; i++)
        if (failing_is_in(failing_lsan, (uintptr_t)frames[i]))
            return true;
    return false;
}

/* What libnng allocates counts when it is for a function of nng that the program called. */
static __attribute__((noinline)) bool is_watched(uintptr_t caller)
{
    if (failing_is_in(failing_program, caller))
        return true;
    if (!failing_is_in(failing_nng, caller))
        return !is_for_sanitizer();
    void *frames[NNG_FRAMES];
    int count = backtrace(frames, NNG_FRAMES), at = OWN_FRAMES;
    while (at < count && failing_is_in(failing_nng, (uintptr_t)frames[at]))
        at++;
    return at < count && failing_is_in(failing_program, (uintptr_t)frames[at]);
}

void *malloc(size_t bytes)
{
    if (failing_is_to_fail(FAILING_CALLER, is_watched)) {
        errno = ENOMEM;
        return NULL;
    }
    if (!real_malloc)
        find_real();
    return real_malloc(bytes);
}

/* dlsym itself may ask for zeroed memory before it has found anything. */
static void *early_memory(size_t bytes)
{
    static _Alignas(max_align_t) char memory[4096];
    static size_t used;
    size_t at = used;
    used += (bytes + 15) / 16 * 16;
    return used <= sizeof memory ? memory + at : NULL;
}

void *calloc(size_t count, size_t bytes)
{
    if (failing_is_to_fail(FAILING_CALLER, is_watched)) {
        errno = ENOMEM;
        return NULL;
    }
    if (!real_calloc)
        return early_memory(count * bytes);
    return real_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    if (bytes > 0 && failing_is_to_fail(FAILING_CALLER, is_watched)) {
        errno = ENOMEM;
        return NULL;
    }
    if (!real_realloc)
        find_real();
    return real_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    if (failing_is_to_fail(FAILING_CALLER, is_watched)) {
        errno = ENOMEM;
        return NULL;
    }
    return real_aligned_alloc(alignment, bytes);
}

int posix_memalign(void **out, size_t alignment, size_t bytes)
{
    if (failing_is_to_fail(FAILING_CALLER, is_watched))
        return ENOMEM;
    return real_posix_memalign(out, alignment, bytes);
}
