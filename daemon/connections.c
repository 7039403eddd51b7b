/* connections.c: see connections.h. */
#include "daemon/connections.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "daemon/log.h"

enum {
    KEPT_FOR_FILES = 16, /* descriptors that no connection gets, */
    KEPT_FOR_WORDS = 48  /* and with those to say so in words */
};

static unsigned long long descriptor_limit(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? (unsigned long long)limit.rlim_cur : 0;
}

/* Whether fewer than so many descriptors are left, to this process or to the system. The system
 * gives the lowest free number. */
static bool descriptors_are_short(unsigned kept)
{
    int lowest = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
    if (lowest < 0)
        return errno == EMFILE || errno == ENFILE;
    close(lowest);
    return (unsigned long long)lowest + kept >= descriptor_limit();
}

static void remember(struct connection_ring *ring, uint32_t client)
{
    atomic_store(&ring->ids[atomic_fetch_add(&ring->count, 1) % CONNECTIONS_REMEMBERED], client);
}

static bool remembers(const struct connection_ring *ring, uint32_t client)
{
    unsigned count = atomic_load(&ring->count);
    for (unsigned i = 0; i < count && i < CONNECTIONS_REMEMBERED; i++)
        if (atomic_load_explicit(&ring->ids[i], memory_order_relaxed) == client)
            return true;
    return false;
}

bool connections_add(struct connections *connections, uint32_t client)
{
    if (!descriptors_are_short(KEPT_FOR_WORDS)) {
        atomic_store(&connections->is_short_said, false);
        return true;
    }
    if (!atomic_exchange(&connections->is_short_said, true))
        log_warning(
            NULL,
            "file descriptors run out (%llu are allowed, and every connection takes one): new connections are refused "
            "until others end; ulimit -n allows more",
            descriptor_limit());
    remember(&connections->late, client);
    return !descriptors_are_short(KEPT_FOR_FILES);
}

void connections_remove(struct connections *connections, uint32_t client)
{
    remember(&connections->gone, client);
}

bool connections_is_gone(const struct connections *connections, uint32_t client)
{
    return remembers(&connections->gone, client);
}

unsigned connections_ended(const struct connections *connections)
{
    return atomic_load(&connections->gone.count);
}

int connections_admit(const struct connections *connections, uint32_t client, struct error *error)
{
    if (!remembers(&connections->late, client) || !descriptors_are_short(KEPT_FOR_WORDS))
        return 0;
    return error_set(error, ERROR_BUSY,
                     "lanced has no file descriptors left for more connections (%llu are allowed, ulimit -n); "
                     "end other clients, or ask again later",
                     descriptor_limit());
}
