/* waiter.h: a request that is parked until something happens.
 *
 * The owner of the something (the job table, loading.c) keeps a list of waiters under its
 * own lock. It calls park() when it puts a waiter on its list and wake() when it takes it off,
 * both with that lock held, so neither may call back. A waiter is on one list at most.
 */
#ifndef LANCE_WAITER_H
#define LANCE_WAITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct waiter {
    void (*park)(struct waiter *waiter);
    void (*wake)(struct waiter *waiter);
    uint32_t client;  /* the connection that waits, for whoever learns that it is gone */
    bool client_gone; /* woken for that reason */
    struct waiter *next;
    struct waiter **link; /* what points to this waiter; NULL: on no list */
};

static inline void waiter_park(struct waiter **list, struct waiter *waiter)
{
    waiter->next = *list;
    waiter->link = list;
    if (*list)
        (*list)->link = &waiter->next;
    *list = waiter;
    waiter->park(waiter);
}

/* Take it off its list, if it is on one. */
static inline void waiter_leave(struct waiter *waiter)
{
    if (!waiter->link)
        return;
    *waiter->link = waiter->next;
    if (waiter->next)
        waiter->next->link = waiter->link;
    waiter->link = NULL;
}

/* Wake the waiters of a client that is gone. */
static inline void waiter_wake_client(struct waiter **list, uint32_t client)
{
    for (struct waiter *waiter = *list, *next; waiter; waiter = next) {
        next = waiter->next;
        if (waiter->client != client)
            continue;
        waiter->client_gone = true;
        waiter_leave(waiter);
        waiter->wake(waiter);
    }
}

static inline void waiter_wake_all(struct waiter **list)
{
    while (*list) {
        struct waiter *waiter = *list;
        waiter_leave(waiter);
        waiter->wake(waiter);
    }
}

#endif
