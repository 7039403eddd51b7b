/* unread.h: answers that their clients have yet to read, and when a client gets no more.
 *
 * An answer is copied for every time it is asked for, so a client that asks and asks without reading would take all memory,
 * and all contexts. It gets no more answers until it reads; hanging up on it while it sends would stop nng's reaper
 * (see server_check). Who has read everything always gets one, whatever others leave lying.
 *
 * Any thread; one mutex.
 */
#ifndef LANCE_UNREAD_H
#define LANCE_UNREAD_H

#include <stdbool.h>
#include <stdint.h>

enum {
    UNREAD_MOST = 64,               /* answers of one connection: each holds a context */
    UNREAD_MOST_BYTES = 64 << 20,   /* of one connection, */
    UNREAD_MOST_BYTES_IN_ALL = 256 << 20, /* and of all that have left something unread already */
};

struct unread;

/* `slots` answers at most are on their way at once. NULL: out of memory. */
struct unread *unread_open(int slots);
void unread_close(struct unread *unread); /* NULL is allowed */

/* Answer `slot` of `bytes` is about to be sent to a client. False: it gets no more for now (the log has said so once), and
 * nothing was noted. Cost: one look at every slot. */
bool unread_begin(struct unread *unread, int slot, uint32_t client, uint64_t bytes);
/* It was read, or its client is gone. */
void unread_end(struct unread *unread, int slot);

/* Answers on their way. */
int unread_count(struct unread *unread);

#endif
