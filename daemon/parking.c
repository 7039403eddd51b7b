/* parking.c: see parking.h.
 *
 * One thread, one lock, which is never held while anything else is called. Those that wait are few enough (server.c has
 * 1024 contexts) that the thread looks through all of them for the earliest time.
 */
#include "daemon/parking.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

struct parking {
    void (*on_out)(struct parked *parked);
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock; /* guards the rest, and everything that is parked */
    pthread_cond_t changed;
    struct parked *waiting;
    struct parked *over, **over_end; /* in the order in which they are to come out */
    double sleeps_until; /* the thread; 0: it is awake */
    bool stopped;
};

/* These four: with the lock held. */

static void leave(struct parked *parked)
{
    *parked->link = parked->next;
    if (parked->next)
        parked->next->link = parked->link;
    parked->link = NULL;
}

static void end(struct parking *parking, struct parked *parked)
{
    leave(parked);
    parked->is_over = true;
    parked->next = NULL;
    parked->link = parking->over_end;
    *parking->over_end = parked;
    parking->over_end = &parked->next;
}

static struct parked *take_over(struct parking *parking)
{
    struct parked *parked = parking->over;
    parking->over = parked->next;
    if (parking->over)
        parking->over->link = &parking->over;
    else
        parking->over_end = &parking->over;
    parked->link = NULL;
    parked->is_over = false;
    return parked;
}

/* End what is due; returns the next time at which something will be. */
static double end_due(struct parking *parking)
{
    double now = clock_seconds(), earliest = INFINITY;
    for (struct parked *parked = parking->waiting, *next; parked; parked = next) {
        next = parked->next;
        if (parked->until <= now)
            end(parking, parked);
        else if (parked->until < earliest)
            earliest = parked->until;
    }
    return earliest;
}

static void *run(void *argument)
{
    struct parking *parking = argument;
    pthread_mutex_lock(&parking->lock);
    while (!parking->stopped) {
        double next = end_due(parking);
        if (parking->over) {
            struct parked *parked = take_over(parking);
            pthread_mutex_unlock(&parking->lock);
            parking->on_out(parked);
            pthread_mutex_lock(&parking->lock);
            continue;
        }
        parking->sleeps_until = next;
        if (next < INFINITY) {
            const struct timespec time = {(time_t)next, (long)((next - floor(next)) * 1e9)};
            pthread_cond_timedwait(&parking->changed, &parking->lock, &time);
        } else
            pthread_cond_wait(&parking->changed, &parking->lock);
        parking->sleeps_until = 0;
    }
    pthread_mutex_unlock(&parking->lock);
    return NULL;
}

int parking_open(struct parking **out, void (*on_out)(struct parked *parked), struct error *error)
{
    *out = NULL;
    struct parking *parking = calloc(1, sizeof *parking);
    if (!parking)
        return error_set(error, ERROR_NO_MEMORY, "server: out of memory");
    parking->on_out = on_out;
    parking->over_end = &parking->over;
    pthread_mutex_init(&parking->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&parking->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int result = pthread_create(&parking->thread, NULL, run, parking);
    parking->has_thread = result == 0;
    if (result != 0) {
        parking_close(parking);
        return error_set(error, ERROR_IO, "server: cannot start a thread: %s", strerror(result));
    }
    *out = parking;
    return 0;
}

void parking_add(struct parking *parking, struct parked *parked, double until)
{
    pthread_mutex_lock(&parking->lock);
    parked->until = until;
    parked->next = parking->waiting;
    parked->link = &parking->waiting;
    if (parking->waiting)
        parking->waiting->link = &parked->next;
    parking->waiting = parked;
    if (until < parking->sleeps_until)
        pthread_cond_signal(&parking->changed);
    pthread_mutex_unlock(&parking->lock);
}

void parking_end(struct parking *parking, struct parked *parked)
{
    pthread_mutex_lock(&parking->lock);
    if (parked->link && !parked->is_over) {
        end(parking, parked);
        pthread_cond_signal(&parking->changed);
    }
    pthread_mutex_unlock(&parking->lock);
}

void parking_stop(struct parking *parking)
{
    pthread_mutex_lock(&parking->lock);
    parking->stopped = true;
    pthread_cond_signal(&parking->changed);
    pthread_mutex_unlock(&parking->lock);
    if (parking->has_thread)
        pthread_join(parking->thread, NULL);
    parking->has_thread = false;
}

void parking_close(struct parking *parking)
{
    if (!parking)
        return;
    parking_stop(parking);
    pthread_cond_destroy(&parking->changed);
    pthread_mutex_destroy(&parking->lock);
    free(parking);
}
