/* test_blobs.c: payloads put piece by piece: in any order, by several clients at once, and by who means no good. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/blobs.h"

enum { PIECE = BLOBS_PIECE_BYTES, SIZE = 4 * PIECE + 1000, PIECES = 5 };

static uint8_t payload[SIZE];
static struct blob_name name;

static struct blob_name name_of(const void *data, uint64_t bytes)
{
    struct blob_name out = {.bytes = bytes};
    struct sha256 sha;
    sha256_start(&sha);
    sha256_add(&sha, data, bytes);
    sha256_finish(&sha, out.text);
    return out;
}

static int fill(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof payload; i++)
        payload[i] = (uint8_t)(i * 7 + (i >> 12));
    name = name_of(payload, sizeof payload);
    return 0;
}

static struct blobs *open_store(uint64_t limit)
{
    struct blobs *blobs;
    struct error error;
    const struct blobs_limits limits = {limit, 600, 600};
    assert_int_equal(blobs_open(&blobs, &limits, &error), 0);
    return blobs;
}

static uint64_t bytes_of_piece(int piece)
{
    return piece < PIECES - 1 ? PIECE : SIZE - (PIECES - 1) * (uint64_t)PIECE;
}

static int put_piece(struct blobs *blobs, int piece, struct blob_state *state, struct error *error)
{
    return blobs_put(blobs, &name, (uint64_t)piece * PIECE, payload + (size_t)piece * PIECE, bytes_of_piece(piece),
                     state, error);
}

static void ask(struct blobs *blobs, const struct blob_name *which, struct blob_state *state)
{
    struct error error;
    assert_int_equal(blobs_ask(blobs, which, state, &error), 0);
}

static void put(struct blobs *blobs, int piece, struct blob_state *state)
{
    struct error error;
    if (put_piece(blobs, piece, state, &error) != 0)
        fail_msg("piece %d: %s", piece, error.text);
}

static void assert_missing(const struct blob_state *state, const char *expected)
{
    char text[400] = "";
    for (int i = 0; i < state->range_count; i++) {
        size_t at = strlen(text);
        snprintf(text + at, sizeof text - at, "%llu+%llu ", (unsigned long long)state->missing[i].offset,
                 (unsigned long long)state->missing[i].bytes);
    }
    assert_string_equal(text, expected);
}

static void assert_here(struct blobs *blobs)
{
    struct blob *blob = blobs_hold(blobs, &name);
    assert_non_null(blob);
    assert_int_equal(blob->bytes, SIZE);
    assert_memory_equal(blob->data, payload, SIZE);
    blob_close(blob);
}

/* --- Tests -------------------------------------------------------------------------------- */

static void pieces_in_any_order_and_twice_make_the_blob(void **state)
{
    (void)state;
    static const int orders[][PIECES + 2] = {{0, 1, 2, 3, 4, 4, 0}, {4, 3, 2, 2, 1, 0, 0}, {2, 0, 4, 0, 1, 3, 3}};
    for (size_t order = 0; order < sizeof orders / sizeof *orders; order++) {
        struct blobs *blobs = open_store(SIZE);
        struct blob_state now;
        for (int i = 0; i < PIECES + 2; i++)
            put(blobs, orders[order][i], &now);
        assert_true(now.is_complete);
        assert_missing(&now, "");
        assert_here(blobs);
        blobs_close(blobs);
    }
}

static void what_is_missing_is_told_as_ranges(void **state)
{
    (void)state;
    struct blobs *blobs = open_store(SIZE);
    struct blob_state now;
    ask(blobs, &name, &now);
    assert_missing(&now, "0+4195304 ");
    assert_int_equal(blobs_bytes(blobs), 0); /* asking takes nothing */
    put(blobs, 1, &now);
    put(blobs, 3, &now);
    assert_missing(&now, "0+1048576 2097152+1048576 4194304+1000 ");
    assert_null(blobs_hold(blobs, &name));
    ask(blobs, &name, &now);
    assert_false(now.is_complete);
    assert_missing(&now, "0+1048576 2097152+1048576 4194304+1000 ");
    blobs_close(blobs);
}

static void bytes_of_another_hash_are_forgotten_and_can_be_put_again(void **state)
{
    (void)state;
    struct blobs *blobs = open_store(SIZE);
    struct blob_state now;
    struct error error;
    for (int i = 1; i < PIECES; i++)
        put(blobs, i, &now);
    payload[5] ^= 1;
    assert_int_equal(put_piece(blobs, 0, &now, &error), ERROR_BAD_REQUEST);
    payload[5] ^= 1;
    assert_non_null(strstr(error.text, "another SHA-256"));
    assert_int_equal(blobs_bytes(blobs), 0);
    for (int i = 0; i < PIECES; i++)
        put(blobs, i, &now);
    assert_here(blobs);
    blobs_close(blobs);
}

static void another_size_under_the_same_hash_is_another_blob(void **state)
{
    (void)state;
    struct blobs *blobs = open_store(UINT64_C(100) << 20);
    struct blob_state now;
    struct error error;
    struct blob_name longer = name;
    longer.bytes += PIECE;
    assert_int_equal(blobs_put(blobs, &longer, 0, payload, PIECE, &now, &error), 0); /* by who means no good */
    for (int i = 0; i < PIECES; i++)
        put(blobs, i, &now);
    assert_here(blobs);
    ask(blobs, &longer, &now);
    assert_false(now.is_complete);
    blobs_close(blobs);
}

static void pieces_off_the_grid_are_refused_with_what_is_right(void **state)
{
    (void)state;
    struct blobs *blobs = open_store(SIZE);
    struct blob_state now;
    struct error error;
    const struct {
        uint64_t offset, bytes;
    } wrong[] = {{1, PIECE}, {PIECE / 2, PIECE}, {0, PIECE - 1}, {0, PIECE + 1}, {0, 0}, {4 * (uint64_t)PIECE, PIECE},
                 {4 * (uint64_t)PIECE, 999}, {5 * (uint64_t)PIECE, 1}, {UINT64_MAX, 1}, {UINT64_MAX - PIECE + 1,
                  PIECE}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(blobs_put(blobs, &name, wrong[i].offset, payload, wrong[i].bytes, &now, &error),
                         ERROR_BAD_REQUEST);
    assert_int_equal(blobs_bytes(blobs), 0);
    blobs_close(blobs);
}

static void a_size_beyond_the_limit_takes_no_memory(void **state)
{
    (void)state;
    struct blobs *blobs = open_store(SIZE);
    struct blob_state now;
    struct error error;
    static const uint64_t huge[] = {SIZE + 1, UINT64_C(1) << 40, UINT64_MAX};
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        struct blob_name large = name;
        large.bytes = huge[i];
        assert_int_equal(blobs_put(blobs, &large, 0, payload, PIECE, &now, &error), ERROR_TOO_LARGE);
        assert_non_null(strstr(error.text, "4195304"));
        assert_int_equal(blobs_ask(blobs, &large, &now, &error), ERROR_TOO_LARGE);
        assert_non_null(strstr(error.text, "4195304"));
    }
    assert_int_equal(blobs_bytes(blobs), 0);
    blobs_close(blobs);
}

/* Start a blob of so many bytes that never ends. */
static int start_another(struct blobs *blobs, int number, uint64_t bytes, struct error *error)
{
    struct blob_state now;
    struct blob_name other = name;
    snprintf(other.text, sizeof other.text, "%064x", number);
    other.bytes = bytes;
    return blobs_put(blobs, &other, 0, payload, bytes < PIECE ? bytes : PIECE, &now, error);
}

static void what_was_touched_just_now_is_not_forgotten_for_others(void **state)
{
    (void)state;
    struct blobs *blobs = open_store(SIZE + 100);
    struct blob_state now;
    struct error error;
    for (int i = 0; i < PIECES; i++)
        put(blobs, i, &now);
    assert_int_equal(start_another(blobs, 1, 2 * PIECE, &error), ERROR_BUSY);
    assert_non_null(strstr(error.text, "4.2 MB"));
    assert_here(blobs);
    /* As soon as a job has it, it does not count. */
    struct blob *held = blobs_hold(blobs, &name);
    assert_int_equal(blobs_bytes(blobs), 0);
    assert_int_equal(start_another(blobs, 1, 2 * PIECE, &error), 0);
    blob_close(held);
    blobs_close(blobs);
}

static void what_a_job_has_had_makes_room_at_once(void **state)
{
    (void)state;
    struct blobs *blobs = open_store(SIZE + 100);
    struct blob_state now;
    struct error error;
    for (int i = 0; i < PIECES; i++)
        put(blobs, i, &now);
    blob_close(blobs_hold(blobs, &name)); /* its job is over */
    assert_int_equal(start_another(blobs, 1, 2 * PIECE, &error), 0);
    blobs_close(blobs);
}

static void thousands_of_started_blobs_end_in_busy(void **state)
{
    (void)state;
    struct blobs *blobs = open_store(UINT64_C(1) << 40);
    struct error error;
    int code = 0, started = 0;
    for (; code == 0 && started < 5000; started++)
        code = start_another(blobs, started, 2 * PIECE, &error);
    assert_int_equal(code, ERROR_BUSY);
    assert_int_equal(started - 1, BLOBS_MOST);
    blobs_close(blobs);
}

static void who_holds_a_blob_keeps_it_when_the_store_is_gone(void **state)
{
    (void)state;
    struct blobs *blobs = open_store(SIZE);
    struct blob_state now;
    for (int i = 0; i < PIECES; i++)
        put(blobs, i, &now);
    struct blob *held = blobs_hold(blobs, &name);
    blobs_close(blobs);
    assert_memory_equal(held->data, payload, SIZE);
    blob_close(held);
}

static void what_nobody_touched_for_long_is_forgotten(void **state)
{
    (void)state;
    struct blobs *blobs;
    struct blob_state now;
    struct error error;
    const struct blobs_limits limits = {SIZE, 0, 0}; /* long is no time at all */
    assert_int_equal(blobs_open(&blobs, &limits, &error), 0);
    for (int i = 0; i < PIECES; i++)
        put(blobs, i, &now);
    struct blob *held = blobs_hold(blobs, &name);
    blobs_sweep(blobs);
    assert_null(blobs_hold(blobs, &name));
    assert_memory_equal(held->data, payload, SIZE);
    blob_close(held);
    blobs_close(blobs);
}

static void the_oldest_goes_first_when_others_need_the_room(void **state)
{
    (void)state;
    struct blobs *blobs;
    struct blob_state now;
    struct error error;
    const struct blobs_limits limits = {SIZE + 2 * PIECE, 600, 0};
    assert_int_equal(blobs_open(&blobs, &limits, &error), 0);
    assert_int_equal(start_another(blobs, 1, 2 * PIECE, &error), 0);
    for (int i = 0; i < PIECES; i++)
        put(blobs, i, &now);
    assert_int_equal(start_another(blobs, 2, 2 * PIECE, &error), 0); /* takes the place of the first */
    assert_here(blobs);
    assert_int_equal(blobs_bytes(blobs), SIZE + 2 * PIECE);
    assert_int_equal(start_another(blobs, 3, SIZE, &error), 0); /* and this one that of both */
    assert_null(blobs_hold(blobs, &name));
    blobs_close(blobs);
}

/* Have all of the payload there under another name. */
static void put_as(struct blobs *blobs, const char *text)
{
    struct blob_state now;
    struct error error;
    struct blob_name chosen = {.bytes = SIZE};
    snprintf(chosen.text, sizeof chosen.text, "%s", text);
    for (int i = PIECES - 1; i >= 0; i--)
        assert_int_equal(blobs_put(blobs, &chosen, (uint64_t)i * PIECE, payload + (size_t)i * PIECE, bytes_of_piece(i),
                                   &now, &error),
                         0);
    assert_true(now.is_complete);
}

static struct blob *hold(struct blobs *blobs, const char *text)
{
    struct blob_name wanted = {.bytes = SIZE};
    snprintf(wanted.text, sizeof wanted.text, "%s", text);
    struct blob *blob = blobs_hold(blobs, &wanted);
    if (blob)
        blobs_hash(blobs, &wanted, blob);
    return blob;
}

static void bytes_that_nobody_has_hashed_are_hashed_here(void **state)
{
    (void)state;
    struct blobs *blobs = open_store(4 * SIZE);
    put_as(blobs, "put-fox");
    struct blob *blob = hold(blobs, "put-fox");
    assert_memory_equal(blob->data, payload, SIZE);
    assert_string_equal(blob->sha256, name.text);
    assert_null(hold(blobs, name.text));
    blob_close(blob);
    blobs_close(blobs);
}

static void who_chooses_a_name_that_is_taken_changes_nothing_of_what_is_there(void **state)
{
    (void)state;
    static const uint8_t garbage[PIECE] = {42};
    struct blobs *blobs = open_store(4 * SIZE);
    struct blob_state now;
    struct error error;
    const struct blob_name chosen = {.text = "put-fox", .bytes = SIZE}, other_size = {.text = "put-fox", .bytes = 1000};
    put_as(blobs, chosen.text);
    for (int i = 0; i < PIECES; i++)
        assert_int_equal(
            blobs_put(blobs, &chosen, (uint64_t)i * PIECE, garbage, bytes_of_piece(i), &now, &error), 0);
    assert_true(now.is_complete);
    assert_int_equal(blobs_put(blobs, &other_size, 0, garbage, other_size.bytes, &now, &error), 0);
    struct blob *blob = hold(blobs, chosen.text);
    assert_memory_equal(blob->data, payload, SIZE);
    assert_string_equal(blob->sha256, name.text);
    blob_close(blob);
    blobs_close(blobs);
}

static void who_holds_bytes_that_were_forgotten_has_their_hash_all_the_same(void **state)
{
    (void)state;
    struct blobs *blobs = open_store(4 * SIZE);
    const struct blob_name chosen = {.text = "put-fox", .bytes = SIZE};
    put_as(blobs, chosen.text);
    struct blob *blob = blobs_hold(blobs, &chosen);
    blobs_drop(blobs, &chosen);
    assert_null(blobs_hold(blobs, &chosen));
    blobs_hash(blobs, &chosen, blob);
    assert_string_equal(blob->sha256, name.text);
    blob_close(blob);
    blobs_close(blobs);
}

static void a_chosen_name_is_forgotten_soon_after_its_job_and_a_hash_is_not(void **state)
{
    (void)state;
    struct blobs *blobs;
    struct error error;
    const struct blobs_limits limits = {4 * SIZE, 600, 0};
    assert_int_equal(blobs_open(&blobs, &limits, &error), 0);
    const char *names[] = {"put-fox", name.text};
    for (int i = 0; i < 2; i++) {
        put_as(blobs, names[i]);
        blobs_sweep(blobs);
        struct blob *job = hold(blobs, names[i]);
        blobs_sweep(blobs);
        blob_close(hold(blobs, names[i]));
        assert_int_equal(blobs_bytes(blobs), 0); /* a job has it */
        blob_close(job);
        blobs_sweep(blobs);
        assert_int_equal(blobs_bytes(blobs), i == 0 ? 0 : SIZE);
    }
    blobs_close(blobs);
}

static void older_blobs_are_hashed_before_newer_ones(void **state)
{
    (void)state;
    struct blobs *blobs = open_store(4 * SIZE);
    struct blob_state now;
    struct error error;
    const struct blob_name older = {.text = "put-older", .bytes = SIZE}, newer = {.text = "put-newer", .bytes = 1000};
    put_as(blobs, older.text);
    assert_int_equal(blobs_put(blobs, &newer, 0, payload, newer.bytes, &now, &error), 0);
    struct blob *first = blobs_hold(blobs, &older), *second = blobs_hold(blobs, &newer);
    blobs_hash(blobs, &newer, second);
    assert_string_equal(first->sha256, name.text);
    blob_close(first);
    blob_close(second);
    blobs_close(blobs);
}

/* --- Several clients at once ------------------------------------------------------------- */

enum { CLIENTS = 6, ROUNDS = 20 };

struct putter {
    struct blobs *blobs;
    int first, wrong_piece; /* -1: none */
    int code;
    bool saw_it_complete;
};

static void *put_all(void *argument)
{
    struct putter *putter = argument;
    static const uint8_t garbage[PIECE] = {42};
    for (int i = 0; i < PIECES && putter->code == 0; i++) {
        int piece = (putter->first + i) % PIECES;
        struct blob_state state = {0};
        struct error error;
        const void *data = piece == putter->wrong_piece ? garbage : payload + (size_t)piece * PIECE;
        putter->code =
            blobs_put(putter->blobs, &name, (uint64_t)piece * PIECE, data, bytes_of_piece(piece), &state, &error);
        putter->saw_it_complete = putter->code == 0 && state.is_complete;
    }
    return NULL;
}

static void put_at_once(struct blobs *blobs, struct putter putters[CLIENTS], int wrong_piece)
{
    pthread_t threads[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        putters[i] = (struct putter){.blobs = blobs, .first = i % PIECES, .wrong_piece = i == 0 ? wrong_piece : -1};
        assert_int_equal(pthread_create(&threads[i], NULL, put_all, &putters[i]), 0);
    }
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
}

static void clients_that_put_the_same_blob_at_once_all_see_it_complete(void **state)
{
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct blobs *blobs = open_store(SIZE);
        struct putter putters[CLIENTS];
        put_at_once(blobs, putters, -1);
        for (int i = 0; i < CLIENTS; i++) {
            assert_int_equal(putters[i].code, 0);
            assert_true(putters[i].saw_it_complete);
        }
        assert_here(blobs);
        blobs_close(blobs);
    }
}

static void a_client_with_wrong_bytes_leaves_nothing_wrong_behind(void **state)
{
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct blobs *blobs = open_store(SIZE);
        struct putter putters[CLIENTS];
        struct blob_state now;
        put_at_once(blobs, putters, round % PIECES);
        for (int i = 0; i < PIECES; i++) /* the first may complete wrong ones that were left */
            put_piece(blobs, i, &now, &(struct error){0});
        for (int i = 0; i < PIECES; i++)
            put(blobs, i, &now);
        assert_here(blobs);
        blobs_close(blobs);
    }
}

static void *put_last_piece(void *argument)
{
    struct blob_state now;
    put_piece(argument, PIECES - 1, &now, &(struct error){0});
    return NULL;
}

/* Have a blob's last piece put while the hasher has others to do, and ask about it until nothing is missing. */
static void ask_while_it_is_hashed(struct blobs *blobs, struct blob_state *now)
{
    pthread_t putter;
    for (int i = 0; i < PIECES - 1; i++)
        put(blobs, i, now);
    put_as(blobs, "put-fox");
    assert_int_equal(pthread_create(&putter, NULL, put_last_piece, blobs), 0);
    do
        ask(blobs, &name, now);
    while (now->range_count == 1 && now->missing[0].bytes == 1000);
    pthread_join(putter, NULL);
}

static void who_asks_for_what_others_have_brought_hears_that_it_is_complete_or_what_to_send(void **state)
{
    (void)state;
    for (int round = 0; round < ROUNDS / 4; round++) {
        struct blobs *blobs = open_store(4 * SIZE);
        struct blob_state now;
        ask_while_it_is_hashed(blobs, &now);
        assert_true(now.is_complete);
        assert_here(blobs);
        blobs_close(blobs);

        blobs = open_store(4 * SIZE);
        name.text[0] = name.text[0] == '0' ? '1' : '0'; /* their hash is another one */
        ask_while_it_is_hashed(blobs, &now);
        assert_false(now.is_complete);
        assert_missing(&now, "0+4195304 ");
        fill(NULL);
        blobs_close(blobs);
    }
}

struct hasher {
    struct blobs *blobs;
    struct blob *blob;
    char hash[SHA256_HEX_BYTES];
};

static void *hash_it(void *argument)
{
    struct hasher *hasher = argument;
    const struct blob_name chosen = {.text = "put-fox", .bytes = hasher->blob->bytes};
    blobs_hash(hasher->blobs, &chosen, hasher->blob);
    memcpy(hasher->hash, hasher->blob->sha256, sizeof hasher->hash);
    return NULL;
}

static void those_who_wait_for_a_hash_have_it_when_the_blob_is_dropped_meanwhile(void **state)
{
    (void)state;
    struct blobs *blobs = open_store(4 * SIZE);
    struct blob_state now;
    struct error error;
    const struct blob_name chosen = {.text = "put-fox", .bytes = 1000}, right = name_of(payload, chosen.bytes);
    for (int round = 0; round < 20 * ROUNDS; round++) {
        pthread_t threads[2];
        struct hasher hashers[2];
        assert_int_equal(blobs_put(blobs, &chosen, 0, payload, chosen.bytes, &now, &error), 0);
        for (int i = 0; i < 2; i++) {
            hashers[i] = (struct hasher){.blobs = blobs, .blob = blobs_hold(blobs, &chosen)};
            assert_int_equal(pthread_create(&threads[i], NULL, hash_it, &hashers[i]), 0);
        }
        blobs_drop(blobs, &chosen);
        for (int i = 0; i < 2; i++) {
            pthread_join(threads[i], NULL);
            assert_string_equal(hashers[i].hash, right.text);
            blob_close(hashers[i].blob);
        }
    }
    blobs_close(blobs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_in_any_order_and_twice_make_the_blob),
        cmocka_unit_test(what_is_missing_is_told_as_ranges),
        cmocka_unit_test(bytes_of_another_hash_are_forgotten_and_can_be_put_again),
        cmocka_unit_test(another_size_under_the_same_hash_is_another_blob),
        cmocka_unit_test(pieces_off_the_grid_are_refused_with_what_is_right),
        cmocka_unit_test(a_size_beyond_the_limit_takes_no_memory),
        cmocka_unit_test(what_was_touched_just_now_is_not_forgotten_for_others),
        cmocka_unit_test(what_a_job_has_had_makes_room_at_once),
        cmocka_unit_test(thousands_of_started_blobs_end_in_busy),
        cmocka_unit_test(who_holds_a_blob_keeps_it_when_the_store_is_gone),
        cmocka_unit_test(what_nobody_touched_for_long_is_forgotten),
        cmocka_unit_test(the_oldest_goes_first_when_others_need_the_room),
        cmocka_unit_test(bytes_that_nobody_has_hashed_are_hashed_here),
        cmocka_unit_test(who_chooses_a_name_that_is_taken_changes_nothing_of_what_is_there),
        cmocka_unit_test(who_holds_bytes_that_were_forgotten_has_their_hash_all_the_same),
        cmocka_unit_test(a_chosen_name_is_forgotten_soon_after_its_job_and_a_hash_is_not),
        cmocka_unit_test(older_blobs_are_hashed_before_newer_ones),
        cmocka_unit_test(who_asks_for_what_others_have_brought_hears_that_it_is_complete_or_what_to_send),
        cmocka_unit_test(those_who_wait_for_a_hash_have_it_when_the_blob_is_dropped_meanwhile),
        cmocka_unit_test(clients_that_put_the_same_blob_at_once_all_see_it_complete),
        cmocka_unit_test(a_client_with_wrong_bytes_leaves_nothing_wrong_behind),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
