/* blobs.c: see blobs.h.
 *
 * Copying and hashing happen without the lock. What they work on stays: an entry that is in use is freed by its last
 * user, and a piece that somebody copies is left to them by everybody else. One thread hashes, of every blob the pieces
 * that lie one behind the other from the start: beside those that bring them, so that little is left to do at the end.
 */
#include "daemon/blobs.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "daemon/log.h"

enum { HASHER_NICE = 5 };
enum piece { PIECE_MISSING, PIECE_COMING, PIECE_HERE };

struct entry {
    struct blob_name name;
    struct blob *bytes;
    uint64_t pieces, here; /* how many there are, and how many have come */
    uint64_t hashed;       /* pieces from the start */
    struct sha256 sha;
    bool is_complete, is_wrong;
    int users;       /* threads in blobs_put */
    bool is_hashing; /* the hasher is at it */
    bool is_forgotten;
    double touched_at;
    bool was_held; /* by a job, and nobody has asked for it since: whoever put it has what it was put for */
    struct entry *next;
    uint8_t piece[]; /* enum piece */
};

struct blobs {
    struct blobs_limits limits;
    pthread_t hasher;
    bool has_hasher;
    pthread_mutex_t lock;    /* guards the rest */
    pthread_cond_t changed;  /* a piece came, or one was hashed, or it is time to end */
    struct entry *first;
    int count;
    bool is_ending;
};

static void *hash_all(void *argument);

int blobs_open(struct blobs **out, const struct blobs_limits *limits, struct error *error)
{
    struct blobs *blobs = *out = calloc(1, sizeof *blobs);
    if (!blobs)
        return error_set(error, ERROR_NO_MEMORY, "blobs: out of memory");
    blobs->limits = *limits;
    pthread_mutex_init(&blobs->lock, NULL);
    pthread_cond_init(&blobs->changed, NULL);
    const int result = pthread_create(&blobs->hasher, NULL, hash_all, blobs);
    blobs->has_hasher = result == 0;
    if (result == 0)
        return 0;
    blobs_close(blobs);
    *out = NULL;
    return error_set(error, ERROR_IO, "blobs: cannot start a thread: %s", strerror(result));
}

static void entry_free(struct entry *entry)
{
    blob_close(entry->bytes);
    free(entry);
}

void blobs_close(struct blobs *blobs)
{
    if (!blobs)
        return;
    pthread_mutex_lock(&blobs->lock);
    blobs->is_ending = true;
    pthread_cond_broadcast(&blobs->changed);
    pthread_mutex_unlock(&blobs->lock);
    if (blobs->has_hasher)
        pthread_join(blobs->hasher, NULL);
    while (blobs->first) {
        struct entry *entry = blobs->first;
        blobs->first = entry->next;
        entry_free(entry);
    }
    pthread_cond_destroy(&blobs->changed);
    pthread_mutex_destroy(&blobs->lock);
    free(blobs);
}

/* --- Everything up to the next line of dashes is called with the lock held. ---------------- */

static struct entry *find(struct blobs *blobs, const struct blob_name *name)
{
    for (struct entry *entry = blobs->first; entry; entry = entry->next)
        if (entry->name.bytes == name->bytes && strcmp(entry->name.text, name->text) == 0)
            return entry;
    return NULL;
}

static void free_if_unused(struct entry *entry)
{
    if (entry->is_forgotten && entry->users == 0 && !entry->is_hashing)
        entry_free(entry);
}

static void forget(struct blobs *blobs, struct entry *entry)
{
    struct entry **link = &blobs->first;
    while (*link != entry)
        link = &(*link)->next;
    *link = entry->next;
    blobs->count--;
    entry->is_forgotten = true;
    pthread_cond_broadcast(&blobs->changed); /* who waits for its hash does it alone now (blobs_hash) */
    free_if_unused(entry);
}

static bool is_held(const struct entry *entry)
{
    return atomic_load(&entry->bytes->references) > 1;
}

/* Called as its client chose, who has not hashed it. */
static bool is_chosen(const struct entry *entry)
{
    return !sha256_is_hex(entry->name.text);
}

static uint64_t counted_bytes(const struct blobs *blobs)
{
    uint64_t bytes = 0;
    for (const struct entry *entry = blobs->first; entry; entry = entry->next)
        if (!is_held(entry))
            bytes += entry->name.bytes;
    return bytes;
}

static void touch(struct entry *entry, bool is_held)
{
    entry->touched_at = clock_seconds();
    entry->was_held = is_held;
}

/* For so long after it was touched a blob may not go. Under a chosen name nobody asks for it again once a job has had
 * it, but who sends the same submit again. */
static double kept_seconds(const struct blobs_limits *limits, const struct entry *entry, bool to_make_room)
{
    if (to_make_room)
        return entry->was_held ? 0 : limits->left_alone_seconds;
    return is_chosen(entry) && entry->was_held && !is_held(entry) ? limits->left_alone_seconds : limits->kept_seconds;
}

/* The one that was touched longest ago, among those that nobody uses and that may go, or NULL. A blob that a job holds
 * is of no use to forget, except that there are too many. */
static struct entry *oldest(struct blobs *blobs, bool to_make_room, bool held_too)
{
    const double now = clock_seconds();
    struct entry *oldest = NULL;
    for (struct entry *entry = blobs->first; entry; entry = entry->next) {
        const double seconds = kept_seconds(&blobs->limits, entry, to_make_room);
        if (entry->users == 0 && entry->touched_at <= now - seconds && (held_too || !is_held(entry)) &&
            (!oldest || entry->touched_at < oldest->touched_at))
            oldest = entry;
    }
    return oldest;
}

static bool fits(const struct blobs *blobs, uint64_t bytes)
{
    const uint64_t counted = counted_bytes(blobs);
    return blobs->count < BLOBS_MOST && counted <= blobs->limits.bytes && bytes <= blobs->limits.bytes - counted;
}

/* Whether there could be room for a blob, were it the only one. */
static int check_size(const struct blobs *blobs, const struct blob_name *name, struct error *error)
{
    if (name->bytes <= blobs->limits.bytes)
        return 0;
    return error_set(error, ERROR_TOO_LARGE,
                     "bytes: a blob of %llu bytes can never be taken, all together may have %llu "
                     "(lanced --blob-bytes)",
                     (unsigned long long)name->bytes, (unsigned long long)blobs->limits.bytes);
}

static int make_room(struct blobs *blobs, const struct blob_name *name, struct error *error)
{
    while (!fits(blobs, name->bytes)) {
        struct entry *entry = oldest(blobs, true, blobs->count >= BLOBS_MOST);
        if (!entry)
            return error_set(error, ERROR_BUSY,
                             "blob %.12s: has %.1f MB, and the %d blobs that are here have %.1f MB; %.1f MB in %d "
                             "are allowed (lanced --blob-bytes); try again later",
                             name->text, (double)name->bytes / 1e6, blobs->count, (double)counted_bytes(blobs) / 1e6,
                             (double)blobs->limits.bytes / 1e6, BLOBS_MOST);
        log_debug(NULL, "blob %.12s: forgotten, others need the room", entry->name.text);
        forget(blobs, entry);
    }
    return 0;
}

static int create(struct blobs *blobs, const struct blob_name *name, struct entry **out, struct error *error)
{
    int code = check_size(blobs, name, error);
    if (code == 0)
        code = make_room(blobs, name, error);
    if (code != 0)
        return code;
    const uint64_t pieces = (name->bytes - 1) / BLOBS_PIECE_BYTES + 1;
    struct entry *entry = calloc(1, sizeof *entry + pieces);
    if (!entry || !(entry->bytes = blob_make(name->bytes))) {
        free(entry);
        return error_set(error, ERROR_NO_MEMORY, "blob %.12s: no memory for its %llu bytes", name->text,
                         (unsigned long long)name->bytes);
    }
    entry->name = *name;
    entry->pieces = pieces;
    sha256_start(&entry->sha);
    entry->next = blobs->first;
    blobs->first = entry;
    blobs->count++;
    *out = entry;
    return 0;
}

/* The size of a piece: the last one's is what remains. */
static uint64_t piece_bytes(const struct blob_name *name, uint64_t piece)
{
    const uint64_t left = name->bytes - piece * BLOBS_PIECE_BYTES;
    return left < BLOBS_PIECE_BYTES ? left : BLOBS_PIECE_BYTES;
}

static void add_missing(struct blob_state *state, uint64_t offset, uint64_t bytes)
{
    struct blob_range *last = state->range_count > 0 ? &state->missing[state->range_count - 1] : NULL;
    if (last && last->offset + last->bytes == offset)
        last->bytes += bytes;
    else if (state->range_count < BLOBS_MOST_RANGES)
        state->missing[state->range_count++] = (struct blob_range){offset, bytes};
}

static void describe(const struct entry *entry, struct blob_state *state)
{
    *state = (struct blob_state){.is_complete = entry->is_complete};
    for (uint64_t i = 0; i < entry->pieces; i++)
        if (entry->piece[i] == PIECE_MISSING)
            add_missing(state, i * BLOBS_PIECE_BYTES, piece_bytes(&entry->name, i));
}

/* Copy a piece in, unless it is here or somebody else is at it; then wait for that. */
static void take_piece(struct blobs *blobs, struct entry *entry, uint64_t piece, const void *data)
{
    while (entry->piece[piece] == PIECE_COMING)
        pthread_cond_wait(&blobs->changed, &blobs->lock);
    if (entry->piece[piece] == PIECE_HERE)
        return;
    entry->piece[piece] = PIECE_COMING;
    pthread_mutex_unlock(&blobs->lock);
    memcpy((char *)entry->bytes->data + piece * BLOBS_PIECE_BYTES, data, piece_bytes(&entry->name, piece));
    pthread_mutex_lock(&blobs->lock);
    entry->piece[piece] = PIECE_HERE;
    entry->here++;
    pthread_cond_broadcast(&blobs->changed);
}

/* Note a blob's hash; whoever has seen it reads it without the lock, so it is written once. */
static void note_hash(struct blob *blob, const char hash[SHA256_HEX_BYTES])
{
    if (blob->sha256[0] == '\0')
        memcpy(blob->sha256, hash, SHA256_HEX_BYTES);
}

/* All are hashed: the bytes are what their name says, or the blob is no more. */
static void judge(struct blobs *blobs, struct entry *entry)
{
    char hash[SHA256_HEX_BYTES];
    sha256_finish(&entry->sha, hash);
    note_hash(entry->bytes, hash);
    entry->is_wrong = !is_chosen(entry) && strcmp(hash, entry->name.text) != 0;
    entry->is_complete = !entry->is_wrong;
    if (entry->is_wrong && !entry->is_forgotten)
        forget(blobs, entry);
}

/* The oldest one whose next piece to be hashed is here, or NULL: newer ones never put off who waits for it. */
static struct entry *next_to_hash(struct blobs *blobs)
{
    struct entry *oldest = NULL;
    for (struct entry *entry = blobs->first; entry; entry = entry->next) /* the newest first */
        if (entry->hashed < entry->pieces && entry->piece[entry->hashed] == PIECE_HERE)
            oldest = entry;
    return oldest;
}

static void hash_piece(struct blobs *blobs, struct entry *entry)
{
    const uint64_t piece = entry->hashed;
    entry->is_hashing = true;
    pthread_mutex_unlock(&blobs->lock);
    sha256_add(&entry->sha, (const char *)entry->bytes->data + piece * BLOBS_PIECE_BYTES,
               piece_bytes(&entry->name, piece));
    pthread_mutex_lock(&blobs->lock);
    if (++entry->hashed == entry->pieces)
        judge(blobs, entry);
    entry->is_hashing = false;
    pthread_cond_broadcast(&blobs->changed);
    free_if_unused(entry);
}

/* The thread that hashes; takes the lock itself. Where processors are short it gives way to those that move bytes, for
 * a hash can follow later, and to jobs, each thread of which leaves it a quarter of its processor. */
static void *hash_all(void *argument)
{
    struct blobs *blobs = argument;
    (void)setpriority(PRIO_PROCESS, 0, HASHER_NICE); /* on Linux, of this thread alone */
    pthread_mutex_lock(&blobs->lock);
    while (!blobs->is_ending) {
        struct entry *entry = next_to_hash(blobs);
        if (entry)
            hash_piece(blobs, entry);
        else
            pthread_cond_wait(&blobs->changed, &blobs->lock);
    }
    pthread_mutex_unlock(&blobs->lock);
    return NULL;
}

/* After a piece has come. With the last one a blob is complete when its hash is right; under a chosen name, of which
 * any hash is right, at once. */
static void await_end(struct blobs *blobs, struct entry *entry)
{
    if (entry->here < entry->pieces)
        return;
    if (is_chosen(entry))
        entry->is_complete = true;
    while (!entry->is_complete && !entry->is_wrong)
        pthread_cond_wait(&blobs->changed, &blobs->lock);
}

static int put(struct blobs *blobs, const struct blob_name *name, uint64_t offset, const void *data,
               struct blob_state *state, struct error *error)
{
    struct entry *entry = find(blobs, name);
    int code = entry ? 0 : create(blobs, name, &entry, error);
    if (code != 0)
        return code;
    touch(entry, false);
    entry->users++;
    take_piece(blobs, entry, offset / BLOBS_PIECE_BYTES, data);
    await_end(blobs, entry);
    if (entry->is_wrong)
        code = error_set(error, ERROR_BAD_REQUEST,
                         "blob %.12s: the %llu bytes that came have another SHA-256, and are forgotten; "
                         "put them again",
                         name->text, (unsigned long long)name->bytes);
    else
        describe(entry, state);
    entry->users--;
    free_if_unused(entry);
    return code;
}

static void describe_nothing(const struct blob_name *name, struct blob_state *state)
{
    *state = (struct blob_state){.range_count = 1, .missing = {{0, name->bytes}}};
}

/* Where nothing is missing, others are at the end of it: wait for what comes of that. */
static void ask(struct blobs *blobs, struct entry *entry, struct blob_state *state)
{
    touch(entry, false);
    entry->users++;
    describe(entry, state);
    while (state->range_count == 0 && !entry->is_complete && !entry->is_wrong) {
        pthread_cond_wait(&blobs->changed, &blobs->lock);
        describe(entry, state);
    }
    if (entry->is_wrong)
        describe_nothing(&entry->name, state);
    entry->users--;
    free_if_unused(entry);
}

/* --- For everybody ------------------------------------------------------------------------- */

int blobs_ask(struct blobs *blobs, const struct blob_name *name, struct blob_state *state, struct error *error)
{
    int code = check_size(blobs, name, error);
    if (code != 0)
        return code;
    pthread_mutex_lock(&blobs->lock);
    struct entry *entry = find(blobs, name);
    if (entry)
        ask(blobs, entry, state);
    else
        describe_nothing(name, state);
    pthread_mutex_unlock(&blobs->lock);
    return 0;
}

int blobs_put(struct blobs *blobs, const struct blob_name *name, uint64_t offset, const void *piece, uint64_t bytes,
              struct blob_state *state, struct error *error)
{
    if (offset % BLOBS_PIECE_BYTES != 0 || offset >= name->bytes)
        return error_set(error, ERROR_BAD_REQUEST, "offset: must be a multiple of %d below bytes, %llu, not %llu",
                         BLOBS_PIECE_BYTES, (unsigned long long)name->bytes, (unsigned long long)offset);
    const uint64_t wanted = piece_bytes(name, offset / BLOBS_PIECE_BYTES);
    if (bytes != wanted)
        return error_set(error, ERROR_BAD_REQUEST, "tensor \"piece\": must have %llu bytes at offset %llu, not %llu",
                         (unsigned long long)wanted, (unsigned long long)offset, (unsigned long long)bytes);
    pthread_mutex_lock(&blobs->lock);
    int code = put(blobs, name, offset, piece, state, error);
    pthread_mutex_unlock(&blobs->lock);
    return code;
}

struct blob *blobs_hold(struct blobs *blobs, const struct blob_name *name)
{
    pthread_mutex_lock(&blobs->lock);
    struct entry *entry = find(blobs, name);
    struct blob *bytes = NULL;
    if (entry)
        touch(entry, entry->is_complete);
    if (entry && entry->is_complete)
        bytes = blob_share(entry->bytes);
    pthread_mutex_unlock(&blobs->lock);
    return bytes;
}

void blobs_hash(struct blobs *blobs, const struct blob_name *name, struct blob *blob)
{
    char hash[SHA256_HEX_BYTES];
    struct entry *entry;
    pthread_mutex_lock(&blobs->lock);
    while (blob->sha256[0] == '\0' && (entry = find(blobs, name)) && entry->bytes == blob)
        pthread_cond_wait(&blobs->changed, &blobs->lock);
    const bool is_left_alone = blob->sha256[0] == '\0'; /* it was forgotten meanwhile */
    pthread_mutex_unlock(&blobs->lock);
    if (!is_left_alone)
        return;
    sha256_of(blob->data, blob->bytes, hash);
    pthread_mutex_lock(&blobs->lock);
    note_hash(blob, hash);
    pthread_mutex_unlock(&blobs->lock);
}

void blobs_drop(struct blobs *blobs, const struct blob_name *name)
{
    pthread_mutex_lock(&blobs->lock);
    struct entry *entry = find(blobs, name);
    if (entry && is_chosen(entry))
        forget(blobs, entry);
    pthread_mutex_unlock(&blobs->lock);
}

void blobs_sweep(struct blobs *blobs)
{
    struct entry *entry;
    pthread_mutex_lock(&blobs->lock);
    while ((entry = oldest(blobs, false, true))) {
        log_debug(NULL, "blob %.12s: forgotten, nobody asked for it", entry->name.text);
        forget(blobs, entry);
    }
    /* What jobs held counts again when they end. */
    while (counted_bytes(blobs) > blobs->limits.bytes && (entry = oldest(blobs, true, false)))
        forget(blobs, entry);
    pthread_mutex_unlock(&blobs->lock);
}

uint64_t blobs_bytes(struct blobs *blobs)
{
    pthread_mutex_lock(&blobs->lock);
    const uint64_t bytes = counted_bytes(blobs);
    pthread_mutex_unlock(&blobs->lock);
    return bytes;
}
