/* unread.h: answers that their clients have yet to read, and which answers have to wait for that.
 *
 * An answer is copied for every time it is asked for, so a client that asks and asks without reading would take all
 * memory, and all contexts. Its large answers wait, uncopied, until it has read; beyond UNREAD_MOST it gets none.
 * (Hanging up on it while it sends would stop nng's reaper, see server_check.) Who has read everything always gets one,
 * whatever others leave lying.
 *
 * Any thread; one mutex.
 */
#ifndef LANCE_UNREAD_H
#define LANCE_UNREAD_H

#include <stdbool.h>
#include <stdint.h>

enum {
    UNREAD_MOST = 64,                     /* answers of one connection, those that wait
                                           * included: each holds a context */
    UNREAD_MOST_BYTES = 64 << 20,         /* of one connection, */
    UNREAD_MOST_BYTES_IN_ALL = 256 << 20, /* and of all that have left something unread already */
    UNREAD_SMALL_BYTES = 64 << 10         /* such an answer never waits */
};

enum unread_verdict { UNREAD_SEND, UNREAD_WAIT, UNREAD_DROP };

struct unread;

/* `slots` answers at most are on their way at once. NULL: out of memory. */
struct unread *unread_open(int slots);
void unread_close(struct unread *unread); /* NULL is allowed */

/* Answer `slot` of `bytes` is ready for a client. UNREAD_SEND: it is noted, send it. UNREAD_WAIT: keep it until
 * unread_end names its slot. UNREAD_DROP: too many; nothing was noted. The log has said once that the client does not
 * read. Cost: one look at every slot. */
enum unread_verdict unread_begin(struct unread *unread, int slot, uint32_t client, uint64_t bytes);

/* Answer `slot` was read, or its client is gone. Returns the slot of an answer of the same client that waited and is
 * to be sent now, already noted as begun; -1: none. A client that has an answer waiting also has one on its way, so
 * that none waits for ever. */
int unread_end(struct unread *unread, int slot);

/* Answers on their way. */
int unread_count(struct unread *unread);

#endif
