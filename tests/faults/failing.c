/* failing.c: see failing.h. */
#include "tests/faults/failing.h"

#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SITE_FRAMES = 8, OWN_FRAMES = 3 /* of these files, on top */, MOST_SITES = 16384 };
enum { WATCH_NOTHING, WATCH_COUNTS, WATCH_SITES };

/* As tests/support/failing.py has it. */
struct control {
    _Atomic uint64_t watch;
    _Atomic uint64_t counted;
    _Atomic uint64_t fail_at;   /* this one fails, counted from 1; 0: none */
    _Atomic uint64_t fail_site; /* the first call of this site fails; 0: none */
    _Atomic uint64_t failed;
    _Atomic uint64_t site_count;
    uint64_t failed_frames[SITE_FRAMES];
    uint64_t sites[MOST_SITES];
};

struct code failing_program, failing_nng, failing_sqlite, failing_lsan;
static struct control *control; /* NULL: nothing to do */
static __thread bool is_inside;

static int note_code(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    (void)context;
    struct code *code = NULL;
    if (info->dlpi_name[0] == '\0' && failing_program.begin == 0)
        code = &failing_program;
    else if (strstr(info->dlpi_name, "libnng"))
        code = &failing_nng;
    else if (strstr(info->dlpi_name, "libsqlite3"))
        code = &failing_sqlite;
    else if (strstr(info->dlpi_name, "liblsan"))
        code = &failing_lsan;
    for (int i = 0; code && i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_LOAD || (info->dlpi_phdr[i].p_flags & PF_X) == 0)
            continue;
        code->begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        code->end = code->begin + info->dlpi_phdr[i].p_memsz;
    }
    return 0;
}

__attribute__((constructor)) static void open_control(void)
{
    void *frames[2];
    bool was_inside = failing_enter();
    backtrace(frames, 2); /* it allocates the first time */
    dl_iterate_phdr(note_code, NULL);
    const char *path = getenv("FAILING");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
    if (fd >= 0) {
        void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (mapped != MAP_FAILED)
            control = mapped;
        syscall(SYS_close, fd);
    }
    failing_leave(was_inside);
}

bool failing_enter(void)
{
    bool was_inside = is_inside;
    is_inside = true;
    return was_inside;
}

void failing_leave(bool was_inside)
{
    is_inside = was_inside;
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

bool failing_is_to_fail(uintptr_t caller, bool (*is_watched)(uintptr_t))
{
    if (!control || is_inside || atomic_load(&control->watch) == WATCH_NOTHING)
        return false;
    bool was_inside = failing_enter();
    bool fails = is_watched(caller) && count_and_decide();
    failing_leave(was_inside);
    return fails;
}
