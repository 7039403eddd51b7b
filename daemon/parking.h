/* parking.h: requests that wait for their time, or for news, whichever comes first.
 *
 * Why not nng_sleep_aio: the thread of nng 1.5 that ends sleeps does so by aio, not by operation. An aio whose sleep
 * ended a moment earlier, because there was news, may be receiving or sending again by then, and nng ends that
 * instead: a receive without a message, or an answer that never leaves. With a timer of our own no aio of the server
 * ever has a timeout or is cancelled.
 *
 * Whoever waits is put in with parking_add and comes out once, through on_out, on the parking's own thread.
 */
#ifndef LANCE_PARKING_H
#define LANCE_PARKING_H

#include <stdbool.h>

#include "base/error.h"

struct parking;

/* Owned by the caller; zero it before its first use. */
struct parked {
    double until; /* of clock.h */
    bool is_over; /* on its way to on_out */
    struct parked *next;
    struct parked **link; /* what points to it; NULL: not parked */
};

/* on_out may take what locks it wants, and park anew. Errors: ERROR_NO_MEMORY, ERROR_IO (no thread to be had). */
int parking_open(struct parking **out, void (*on_out)(struct parked *parked), struct error *error);

/* Any thread, under any lock. on_out may be called before this returns. */
void parking_add(struct parking *parking, struct parked *parked, double until);

/* There is news: out with it now. Any thread, under any lock; does nothing when it is out already. */
void parking_end(struct parking *parking, struct parked *parked);

/* Nobody comes out any more, and none is on its way when this returns. parking_add and parking_end do no harm then. */
void parking_stop(struct parking *parking);

/* NULL is allowed. */
void parking_close(struct parking *parking);

#endif
