/* loading.c: see loading.h.
 *
 * One lock, under which the residency's may be taken, and no other. Whoever loads (the runner too, for a job) wakes
 * those who wait here, by residency_on_load.
 */
#include "daemon/loading.h"

#include <pthread.h>
#include <stdlib.h>

enum { WANT_NOTHING = -1, WANT_UNLOAD = -2 }; /* otherwise the index of a model to load */

struct loading {
    const struct options *options;
    struct residency *residency;
    struct jobs *jobs;
    pthread_mutex_t lock; /* guards the rest */
    int wanted;
    int doing; /* what was wanted and the worker's thread is at, or WANT_NOTHING */
    struct waiter *waiters;
};

static void wake_all(void *context)
{
    struct loading *loading = context;
    pthread_mutex_lock(&loading->lock);
    waiter_wake_all(&loading->waiters);
    pthread_mutex_unlock(&loading->lock);
}

int loading_open(struct loading **out, const struct options *options, struct residency *residency, struct jobs *jobs,
                 struct error *error)
{
    struct loading *loading = *out = calloc(1, sizeof *loading);
    if (!loading)
        return error_set(error, ERROR_NO_MEMORY, "models: out of memory");
    loading->options = options;
    loading->residency = residency;
    loading->jobs = jobs;
    loading->wanted = loading->doing = WANT_NOTHING;
    pthread_mutex_init(&loading->lock, NULL);
    residency_on_load(residency, wake_all, loading);
    return 0;
}

void loading_close(struct loading *loading)
{
    if (!loading)
        return;
    pthread_mutex_destroy(&loading->lock);
    free(loading);
}

void loading_serve(struct loading *loading)
{
    pthread_mutex_lock(&loading->lock);
    const int wanted = loading->doing = loading->wanted;
    loading->wanted = WANT_NOTHING;
    pthread_mutex_unlock(&loading->lock);
    if (wanted == WANT_NOTHING)
        return;
    struct error unused; /* the residency keeps it for whoever asked */
    if (wanted == WANT_UNLOAD)
        residency_unload(loading->residency);
    else
        residency_load(loading->residency, wanted, &unused);
    pthread_mutex_lock(&loading->lock);
    loading->doing = WANT_NOTHING;
    waiter_wake_all(&loading->waiters); /* also those who asked for what was there already */
    pthread_mutex_unlock(&loading->lock);
}

bool loading_is_wanted(struct loading *loading)
{
    pthread_mutex_lock(&loading->lock);
    const bool is_wanted = loading->wanted != WANT_NOTHING;
    pthread_mutex_unlock(&loading->lock);
    return is_wanted;
}

bool loading_is_quick(struct loading *loading)
{
    pthread_mutex_lock(&loading->lock);
    const int wanted = loading->wanted;
    pthread_mutex_unlock(&loading->lock);
    return wanted >= 0 && residency_has_room(loading->residency, wanted);
}

/* --- For clients -------------------------------------------------------------------------- */

/* What the worker's thread is at or will turn to next. The caller holds the lock. */
static int outlook(const struct loading *loading)
{
    return loading->wanted != WANT_NOTHING ? loading->wanted : loading->doing;
}

int loading_load(struct loading *loading, int index, uint64_t *ticket, struct waiter *waiter, bool *parked,
                 struct error *error)
{
    int status = 0;
    bool wanted = false;
    *parked = false;
    pthread_mutex_lock(&loading->lock);
    /* Who has just begun to ask does not get a model that is about to go; who has waited for it does: else two clients
     * that want different models could keep each other waiting. */
    bool stays = outlook(loading) == WANT_NOTHING || outlook(loading) == index;
    if (residency_is_loaded(loading->residency, index) && (stays || *ticket != 0)) {
        status = 0;
    } else if (*ticket != 0 && residency_has_failed(loading->residency, index, *ticket - 1, error)) {
        status = error->code;
    } else {
        if (*ticket == 0)
            *ticket = residency_attempts(loading->residency) + 1;
        loading->wanted = index;
        wanted = true;
        if (waiter) {
            *parked = true;
            waiter_park(&loading->waiters, waiter);
        } else
            status = error_set(error, ERROR_BUSY,
                               "model %s: is not loaded yet (jobs that are open end first); ask again",
                               loading->options->models[index].name);
    }
    pthread_mutex_unlock(&loading->lock);
    if (wanted)
        jobs_poke(loading->jobs);
    return status;
}

enum unloading loading_unload(struct loading *loading, uint64_t *ticket, struct waiter *waiter)
{
    const bool is_running = jobs_is_running(loading->jobs);
    enum unloading state = UNLOAD_NOTHING;
    struct residency_status status;
    pthread_mutex_lock(&loading->lock);
    residency_status(loading->residency, &status);
    *ticket = status.unloads;
    if (status.loaded >= 0 || outlook(loading) >= 0 || is_running) {
        loading->wanted = WANT_UNLOAD;
        state = is_running || !waiter ? UNLOAD_PENDING : UNLOAD_PARKED;
        if (state == UNLOAD_PARKED)
            waiter_park(&loading->waiters, waiter);
    }
    pthread_mutex_unlock(&loading->lock);
    if (state != UNLOAD_NOTHING)
        jobs_poke(loading->jobs);
    return state;
}

enum unloading loading_unload_again(struct loading *loading, uint64_t ticket, struct waiter *waiter)
{
    enum unloading state = UNLOAD_NOTHING;
    struct residency_status status;
    pthread_mutex_lock(&loading->lock);
    residency_status(loading->residency, &status);
    if (status.unloads > ticket || (status.loaded < 0 && outlook(loading) == WANT_NOTHING))
        state = UNLOAD_DONE;
    else if (outlook(loading) == WANT_UNLOAD)
        state = waiter ? UNLOAD_PARKED : UNLOAD_PENDING;
    if (state == UNLOAD_PARKED)
        waiter_park(&loading->waiters, waiter);
    pthread_mutex_unlock(&loading->lock);
    return state;
}

void loading_unpark(struct loading *loading, struct waiter *waiter)
{
    pthread_mutex_lock(&loading->lock);
    waiter_leave(waiter);
    pthread_mutex_unlock(&loading->lock);
}

void loading_client_gone(struct loading *loading, uint32_t client)
{
    pthread_mutex_lock(&loading->lock);
    waiter_wake_client(&loading->waiters, client);
    pthread_mutex_unlock(&loading->lock);
}
