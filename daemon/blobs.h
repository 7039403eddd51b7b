/* blobs.h: payloads of requests that have not been submitted yet, put piece by piece under the SHA-256 of all their
 * bytes, or under a name that the client chose (blob.h).
 *
 * The store knows bytes and their hash, nothing of what they mean. What it keeps is bounded: a blob's size is admitted
 * before anything is allocated for it. A job that has got hold of a blob shares its bytes (blob.h), and the store may
 * forget it without harm; such bytes do not count here.
 *
 * Any thread; one mutex, which is not held while bytes are copied or hashed. It has a thread of its own that hashes.
 * Pieces may come in any order, twice, and from several clients at once.
 */
#ifndef LANCE_BLOBS_H
#define LANCE_BLOBS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/sha256.h"
#include "daemon/blob.h"

/* So many bits number the bytes of a piece: 1 MiB. Where inputs are made up (make fuzz) there are fewer, or moving and
 * hashing them would be all that it does. */
#ifndef BLOBS_PIECE_BITS
#define BLOBS_PIECE_BITS 20
#endif

enum {
    BLOBS_PIECE_BYTES = 1 << BLOBS_PIECE_BITS, /* of each piece but the last */
    BLOBS_MOST = 1024,                         /* kept at once */
    BLOBS_MOST_RANGES = 64                     /* told of what is missing */
};

struct blobs_limits {
    uint64_t bytes;            /* all together, those that are still coming included, without those that a job holds; */
    double kept_seconds;       /* so long after somebody touched it one is forgotten; */
    double left_alone_seconds; /* for so long not even when room is needed, unless a job has had it; and no longer than
                                * this when one has had it and nobody else can know its name */
};

struct blobs;

/* Which bytes: what they are called (blob_name_is_right) and how many they are. Those of one name and another size are
 * something else. */
struct blob_name {
    char text[BLOB_NAME_BYTES];
    uint64_t bytes;
};

/* What is still to come of a blob. */
struct blob_state {
    bool is_complete;
    int range_count; /* the first so many; there may be more */
    struct blob_range {
        uint64_t offset, bytes;
    } missing[BLOBS_MOST_RANGES];
};

/* Errors: ERROR_NO_MEMORY, ERROR_IO (no thread). */
int blobs_open(struct blobs **out, const struct blobs_limits *limits, struct error *error);
void blobs_close(struct blobs *blobs); /* NULL is allowed */

/* What of a blob is here. When nothing is missing but its hash, returns when that is known. Errors: ERROR_TOO_LARGE (it
 * can never fit). */
int blobs_ask(struct blobs *blobs, const struct blob_name *name, struct blob_state *state, struct error *error);

/* Take in the piece at `offset`, a multiple of BLOBS_PIECE_BYTES; `bytes` must be that many, or what remains. Returns
 * when it is taken in, and with the last one of a blob that is called by its hash when that is known. Errors:
 * ERROR_BAD_REQUEST (another offset or size; or the bytes have another hash than they are called by: then all of them
 * are forgotten), ERROR_TOO_LARGE (it can never fit), ERROR_BUSY (not now), ERROR_NO_MEMORY. */
int blobs_put(struct blobs *blobs, const struct blob_name *name, uint64_t offset, const void *piece, uint64_t bytes,
              struct blob_state *state, struct error *error);

/* The bytes of a complete blob, one reference for the caller; NULL: it is not here, or not complete. Nobody may look at
 * their hash before blobs_hash. */
struct blob *blobs_hold(struct blobs *blobs, const struct blob_name *name);

/* Wait until the hash of a blob that the caller holds is known. Cost: none for one that is called by it. */
void blobs_hash(struct blobs *blobs, const struct blob_name *name, struct blob *blob);

/* Forget a blob with a chosen name, whose client will not ask for it again; one that is called by its hash stays. */
void blobs_drop(struct blobs *blobs, const struct blob_name *name);

/* Forget what nobody has touched for long enough. Call now and then. */
void blobs_sweep(struct blobs *blobs);

/* What counts for the limit now. */
uint64_t blobs_bytes(struct blobs *blobs);

#endif
