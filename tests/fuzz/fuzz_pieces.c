/* fuzz_pieces.c: blobs put in pieces (daemon/blobs.h): any order, twice, wrong sizes, other bytes, more than there is
 * room for. What is complete has the bytes of its name, whatever came before.
 *
 * Each operation takes four bytes of the input: what, which blob, which piece, and how far it is from right. The store
 * stays open from one input to the next, for a thread of its own hashes; it is emptied in between.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "daemon/blob.h"
#include "daemon/blobs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { KINDS = 5, ROOM_BYTES = 4 * BLOBS_PIECE_BYTES };
static const uint64_t sizes[KINDS] = {1, BLOBS_PIECE_BYTES / 4, BLOBS_PIECE_BYTES, BLOBS_PIECE_BYTES + 1,
                                      3 * BLOBS_PIECE_BYTES - 5};

/* Every blob is the beginning of these bytes, with its kind as the first one. */
static uint8_t contents[KINDS][3 * BLOBS_PIECE_BYTES];
static struct blob_name names[KINDS];

static void make_contents(void)
{
    for (int kind = 0; names[0].bytes == 0 || kind > 0; kind++) {
        if (kind == KINDS)
            return;
        for (size_t i = 0; i < sizes[kind]; i++)
            contents[kind][i] = (uint8_t)(i * 7 + (size_t)kind);
        names[kind].bytes = sizes[kind];
        sha256_of(contents[kind], sizes[kind], names[kind].text);
    }
}

/* What the daemon says of a blob fits it. */
static void check_state(const struct blob_state *state, const struct blob_name *name)
{
    for (int i = 0; i < state->range_count; i++)
        if (state->missing[i].bytes == 0 || state->missing[i].offset + state->missing[i].bytes > name->bytes)
            abort();
    if (state->is_complete != (state->range_count == 0))
        abort();
}

static void put(struct blobs *blobs, int kind, unsigned piece, unsigned wrong)
{
    struct blob_name name = names[kind];
    struct blob_state state;
    struct error error = {0};
    uint8_t changed[64];
    uint64_t offset = (uint64_t)(piece % 4) * BLOBS_PIECE_BYTES + (wrong & 1u);
    uint64_t bytes = offset < name.bytes ? name.bytes - offset : 0;
    bytes = (bytes < BLOBS_PIECE_BYTES ? bytes : BLOBS_PIECE_BYTES) + (wrong >> 1 & 1u);
    const uint8_t *from = contents[kind] + (offset < name.bytes ? offset : 0);
    if ((wrong & 4u) && bytes <= sizeof changed) {
        memset(changed, 0xee, sizeof changed);
        from = changed;
    }
    if (wrong & 8u)
        name.bytes += wrong >> 4;
    const int code = blobs_put(blobs, &name, offset, from, bytes, &state, &error);
    if (code == 0)
        check_state(&state, &name);
    else if (error.text[0] == '\0' || code == ERROR_INTERNAL)
        abort();
}

static void ask(struct blobs *blobs, int kind)
{
    struct blob_state state;
    struct error error = {0};
    if (blobs_ask(blobs, &names[kind], &state, &error) == 0)
        check_state(&state, &names[kind]);
}

static void hold(struct blobs *blobs, int kind)
{
    struct blob *blob = blobs_hold(blobs, &names[kind]);
    if (!blob)
        return;
    if (blob->bytes != sizes[kind] || memcmp(blob->data, contents[kind], blob->bytes) != 0)
        abort();
    blob_close(blob);
}

/* The beginning of a blob that needs all the room: every other one is forgotten for it, and it for the next one. */
static void empty(struct blobs *blobs)
{
    static const struct blob_name all_of_it = {.text = "put-all-of-it", .bytes = ROOM_BYTES};
    struct blob_state state;
    struct error error;
    if (blobs_put(blobs, &all_of_it, 0, contents[KINDS - 1], BLOBS_PIECE_BYTES, &state, &error) != 0 ||
        blobs_bytes(blobs) != ROOM_BYTES)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct blobs *blobs;
    struct error error;
    const struct blobs_limits limits = {.bytes = ROOM_BYTES, .kept_seconds = 1000.0, .left_alone_seconds = 0.0};
    make_contents();
    if (!blobs && blobs_open(&blobs, &limits, &error) != 0)
        abort();
    empty(blobs);
    for (size_t i = 0; i + 4 <= bytes && i < 64 * 4; i += 4) {
        const int kind = data[i + 1] % KINDS;
        switch (data[i] % 8) {
        case 0: ask(blobs, kind); break;
        case 1: hold(blobs, kind); break;
        case 2: blobs_sweep(blobs); break;
        default: put(blobs, kind, data[i + 2], data[i] % 8 == 3 ? data[i + 3] : 0); break;
        }
    }
    for (int kind = 0; kind < KINDS; kind++)
        hold(blobs, kind);
    return 0;
}
