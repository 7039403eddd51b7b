/* failing_memory.c: a library to be preloaded, with which allocations of a program fail when a test wants them to.
 *
 * The program and the test share one mapped file, named by FAILING_MEMORY. The test writes what is to fail into it
 * while the program is idle: the n-th allocation from now on, or the first one at a certain call site. A site is the
 * last SITE_FRAMES return addresses, hashed; in a program whose addresses are not randomised it has the same hash in
 * every run. Sites are listed in the order in which they were met, when the test asks for it.
 *
 * Never failed: what libnng allocates on its own threads for its own connections, which lanced hears nothing of (nng
 * drops such a connection, and its client asks again), and what is allocated while nothing is watched. Any thread.
 */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SITE_FRAMES = 8, OWN_FRAMES = 3 /* of this file, on top */, NNG_FRAMES = 16, MOST_SITES = 16384 };
enum { WATCH_NOTHING, WATCH_COUNTS, WATCH_SITES };

/* As tests/support/failing_memory.py has it. */
struct control {
    _Atomic uint64_t watch;
    _Atomic uint64_t counted;
    _Atomic uint64_t fail_at;   /* this one fails, counted from 1; 0: none */
    _Atomic uint64_t fail_site; /* the first allocation of this site fails; 0: none */
    _Atomic uint64_t failed;
    _Atomic uint64_t site_count;
    uint64_t failed_frames[SITE_FRAMES];
    uint64_t sites[MOST_SITES];
};

static struct control *control; /* NULL: nothing to do */
static uintptr_t nng_begin, nng_end, program_begin, program_end; /* their code */
static __thread bool is_inside; /* an allocation of our own, or of what we call */
static void *(*real_malloc)(size_t), *(*real_calloc)(size_t, size_t), *(*real_realloc)(void *, size_t);
static void *(*real_aligned_alloc)(size_t, size_t);
static int (*real_posix_memalign)(void **, size_t, size_t);

static int note_code(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    (void)context;
    const bool is_program = info->dlpi_name[0] == '\0' && program_begin == 0;
    if (!is_program && strstr(info->dlpi_name, "libnng") == NULL)
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_LOAD || (info->dlpi_phdr[i].p_flags & PF_X) == 0)
            continue;
        *(is_program ? &program_begin : &nng_begin) = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        *(is_program ? &program_end : &nng_end) =
            info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
    }
    return 0;
}

static void find_real(void)
{
    *(void **)&real_malloc = dlsym(RTLD_NEXT, "malloc");
    *(void **)&real_calloc = dlsym(RTLD_NEXT, "calloc");
    *(void **)&real_realloc = dlsym(RTLD_NEXT, "realloc");
    *(void **)&real_aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
    *(void **)&real_posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
}

__attribute__((constructor)) static void open_control(void)
{
    void *frames[2];
    is_inside = true;
    find_real();
    backtrace(frames, 2); /* it allocates the first time */
    dl_iterate_phdr(note_code, NULL);
    const char *path = getenv("FAILING_MEMORY");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd >= 0) {
        void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (mapped != MAP_FAILED)
            control = mapped;
        close(fd);
    }
    is_inside = false;
}

static uint64_t site_of(void *const *frames, int count)
{
    uint64_t hash = 14695981039346656037u;
    for (int i = 0; i < count; i++)
        hash = (hash ^ (uintptr_t)frames[i]) * 1099511628211u;
    return hash | 1; /* never 0 */
}

/* Lists a site that is new; a site that two threads meet at once may be there twice. */
static void note_site(uint64_t site)
{
    uint64_t count = atomic_load(&control->site_count);
    for (uint64_t i = 0; i < count; i++)
        if (control->sites[i] == site)
            return;
    uint64_t at = atomic_fetch_add(&control->site_count, 1);
    if (at < MOST_SITES)
        control->sites[at] = site;
    else
        atomic_store(&control->site_count, MOST_SITES);
}

static bool is_nng(uintptr_t address)
{
    return address >= nng_begin && address < nng_end;
}

/* Whether what libnng allocates is for a function of nng that the program called. */
static __attribute__((noinline)) bool nng_was_asked(void)
{
    void *frames[NNG_FRAMES];
    int count = backtrace(frames, NNG_FRAMES), at = OWN_FRAMES;
    while (at < count && is_nng((uintptr_t)frames[at]))
        at++;
    return at < count && (uintptr_t)frames[at] >= program_begin && (uintptr_t)frames[at] < program_end;
}

static __attribute__((noinline)) bool count_and_decide(void)
{
    void *frames[OWN_FRAMES + SITE_FRAMES];
    uint64_t number = atomic_fetch_add(&control->counted, 1) + 1, site = 0;
    int count = 0;
    bool fails = number == atomic_load(&control->fail_at);
    if (fails || atomic_load(&control->watch) == WATCH_SITES) {
        count = backtrace(frames, OWN_FRAMES + SITE_FRAMES) - OWN_FRAMES;
        site = site_of(frames + OWN_FRAMES, count < SITE_FRAMES ? count : SITE_FRAMES);
        uint64_t wanted = atomic_load(&control->fail_site);
        if (wanted == 0 && !fails)
            note_site(site);
        else if (!fails)
            fails = site == wanted && atomic_compare_exchange_strong(&control->fail_site, &wanted, UINT64_MAX - 1);
    }
    if (fails) {
        for (int i = 0; i < SITE_FRAMES; i++)
            control->failed_frames[i] = i < count ? (uintptr_t)frames[i + OWN_FRAMES] : 0;
        atomic_fetch_add(&control->failed, 1);
    }
    return fails;
}

/* Whether the allocation that is asked for is to fail. Called by each function that allocates,
 * which is inlined into none. */
static __attribute__((noinline)) bool is_to_fail(uintptr_t caller)
{
    if (control == NULL || is_inside || atomic_load(&control->watch) == WATCH_NOTHING)
        return false;
    is_inside = true;
    bool fails = (!is_nng(caller) || nng_was_asked()) && count_and_decide();
    is_inside = false;
    return fails;
}

#define CALLER ((uintptr_t)__builtin_return_address(0))

void *malloc(size_t bytes)
{
    if (is_to_fail(CALLER)) {
        errno = ENOMEM;
        return NULL;
    }
    if (real_malloc == NULL)
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
    if (is_to_fail(CALLER)) {
        errno = ENOMEM;
        return NULL;
    }
    if (real_calloc == NULL)
        return early_memory(count * bytes);
    return real_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    if (bytes > 0 && is_to_fail(CALLER)) {
        errno = ENOMEM;
        return NULL;
    }
    if (real_realloc == NULL)
        find_real();
    return real_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    if (is_to_fail(CALLER)) {
        errno = ENOMEM;
        return NULL;
    }
    return real_aligned_alloc(alignment, bytes);
}

int posix_memalign(void **out, size_t alignment, size_t bytes)
{
    if (is_to_fail(CALLER))
        return ENOMEM;
    return real_posix_memalign(out, alignment, bytes);
}
