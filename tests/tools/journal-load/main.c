/* main.c: journal-load FOLDER JOBS SEED: jobs of made-up sizes pass through a journal in FOLDER/state as fast as it
 * takes them, and what it acknowledged stands in FOLDER/acks, a line each: "accepted 3", "ended 3", "released 3".
 *
 * For tests/e2e/test_power_loss.py, which records what that does to the disk. Two threads: this one, and the journal's.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sha256.h"
#include "daemon/journal/journal.h"
#include "daemon/journal/store.h"

enum { LARGEST = 600000, AT_ONCE = 4 };

static int acks;
static atomic_int under_way;
static atomic_uint_fast64_t last_written;

static void acknowledge(const char *what, uint64_t number)
{
    char line[60];
    int length = snprintf(line, sizeof line, "%s %llu\n", what, (unsigned long long)number);
    if (write(acks, line, (size_t)length) != length)
        abort();
}

static void on_written(void *context, uint64_t number)
{
    (void)context;
    atomic_store(&last_written, number);
}

static void on_accepted(void *context, uint64_t number, const struct error *failure)
{
    (void)context;
    if (failure->code == 0)
        acknowledge("accepted", number);
}

static void on_ended(void *context, uint64_t number, const struct error *failure)
{
    (void)context;
    if (failure->code == 0)
        acknowledge("ended", number);
    atomic_fetch_sub(&under_way, 1);
}

/* Bytes that tell whose they are. */
static struct blob *make_bytes(unsigned salt)
{
    const uint64_t bytes = (uint64_t)(rand() % LARGEST) + 1;
    uint8_t *data = malloc(bytes);
    if (!data)
        abort();
    for (uint64_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)((i * 2654435761u) >> 13 ^ salt);
    struct blob *blob = blob_open(data, bytes);
    sha256_of(blob->data, blob->bytes, blob->sha256);
    return blob;
}

static int pass_job(struct journal *journal, uint64_t number, struct error *error)
{
    char id[40];
    struct blob *payload = make_bytes((unsigned)number), *result = make_bytes((unsigned)number + 100);
    struct journal_payload held = {.bytes = payload};
    memcpy(held.sha256, payload->sha256, sizeof held.sha256);
    snprintf(id, sizeof id, "job-%llu", (unsigned long long)number);
    const struct journal_job job = {.number = number,
                                    .id = id,
                                    .digest = payload->sha256,
                                    .task = "t2i",
                                    .prompt = "a fox",
                                    .request = "{\"task\": \"t2i\"}",
                                    .payloads = &held,
                                    .payload_count = number % 3 != 0};
    const struct journal_end end = {.state = "done", .receipt = "{}", .result = result};
    struct store_attempt attempt;
    atomic_fetch_add(&under_way, 1);
    int code = journal_accept(journal, &job, on_written, on_accepted, NULL, error);
    while (code == 0 && atomic_load(&last_written) < number)
        usleep(10);
    if (code == 0)
        code = journal_start(journal, number, &attempt, error);
    if (code == 0 && number % 2 == 0)
        journal_save(journal, number, 3, blob_share(payload));
    if (code == 0)
        code = journal_end(journal, number, &end, on_ended, NULL, error);
    blob_close(payload);
    blob_close(result);
    while (atomic_load(&under_way) >= AT_ONCE)
        usleep(100);
    return code;
}

int main(int argc, char **argv)
{
    struct store *store;
    struct journal *journal;
    struct error error;
    char path[400];
    const struct journal_limits limits = {.result_bytes = UINT64_C(1) << 40, .result_seconds = 1e6, .cache_bytes = 0};
    if (argc != 4)
        return 2;
    srand((unsigned)atoi(argv[3]));
    snprintf(path, sizeof path, "%s/acks", argv[1]);
    acks = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    snprintf(path, sizeof path, "%s/state", argv[1]);
    int code = store_open(&store, path, &limits, NULL, &error);
    if (code == 0)
        code = journal_open(&journal, store, &error);
    for (uint64_t number = 1; code == 0 && number <= (uint64_t)atoi(argv[2]); number++) {
        code = pass_job(journal, number, &error);
        if (number > 10 && number % 4 == 0) {
            acknowledge("releasing", number - 10);
            journal_release(journal, number - 10);
        }
    }
    if (code != 0) {
        fprintf(stderr, "journal-load: %s\n", error.text);
        return 1;
    }
    journal_close(journal);
    store_close(store);
    return 0;
}
