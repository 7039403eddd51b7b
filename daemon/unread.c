/* unread.c: see unread.h. */
#include "daemon/unread.h"

#include <pthread.h>
#include <stdlib.h>

#include "daemon/log.h"

struct answer {
    uint32_t client; /* 0: none */
    uint64_t bytes;
    bool waits;
};

struct unread {
    pthread_mutex_t lock; /* guards the rest */
    struct answer *answers;
    int slots, count; /* count: on their way, */
    uint64_t bytes;   /* and theirs; */
    int waiting;      /* those that wait: most of the time there are none, and the list need not be looked through */
    uint32_t last_refused; /* the client that the log spoke of last */
};

struct unread *unread_open(int slots)
{
    struct unread *unread = calloc(1, sizeof *unread);
    if (!unread)
        return NULL;
    unread->answers = calloc((size_t)slots, sizeof *unread->answers);
    if (!unread->answers || pthread_mutex_init(&unread->lock, NULL) != 0) {
        free(unread->answers);
        free(unread);
        return NULL;
    }
    unread->slots = slots;
    return unread;
}

void unread_close(struct unread *unread)
{
    if (!unread)
        return;
    pthread_mutex_destroy(&unread->lock);
    free(unread->answers);
    free(unread);
}

static enum unread_verdict judge(const struct unread *unread, uint32_t client, uint64_t bytes)
{
    int count = 0, waiting = 0;
    uint64_t held = 0;
    if (unread->count == 0)
        return UNREAD_SEND;
    for (int i = 0; i < unread->slots; i++) {
        const struct answer *answer = &unread->answers[i];
        if (answer->client != client)
            continue;
        waiting += answer->waits;
        count += !answer->waits;
        held += answer->waits ? 0 : answer->bytes;
    }
    if (count == 0)
        return UNREAD_SEND;
    if (count + waiting >= UNREAD_MOST)
        return UNREAD_DROP;
    const bool fits = held + bytes <= UNREAD_MOST_BYTES && unread->bytes + bytes <= UNREAD_MOST_BYTES_IN_ALL;
    return fits || bytes <= UNREAD_SMALL_BYTES ? UNREAD_SEND : UNREAD_WAIT;
}

static void note(struct unread *unread, int slot)
{
    unread->answers[slot].waits = false;
    unread->waiting--;
    unread->count++;
    unread->bytes += unread->answers[slot].bytes;
}

enum unread_verdict unread_begin(struct unread *unread, int slot, uint32_t client, uint64_t bytes)
{
    pthread_mutex_lock(&unread->lock);
    const enum unread_verdict verdict = judge(unread, client, bytes);
    const bool is_news = verdict == UNREAD_DROP && unread->last_refused != client;
    if (verdict != UNREAD_DROP) {
        unread->answers[slot] = (struct answer){client, bytes, true};
        unread->waiting++;
    }
    if (verdict == UNREAD_SEND)
        note(unread, slot);
    if (is_news)
        unread->last_refused = client;
    pthread_mutex_unlock(&unread->lock);
    if (is_news)
        log_warning(NULL, "a client left %d answers unread and gets no more until it reads them", UNREAD_MOST);
    return verdict;
}

/* An answer of the client that waits and may be sent. */
static int next_of(const struct unread *unread, uint32_t client)
{
    for (int i = 0; unread->waiting > 0 && i < unread->slots; i++)
        if (unread->answers[i].client == client && unread->answers[i].waits)
            return judge(unread, client, unread->answers[i].bytes) == UNREAD_SEND ? i : -1;
    return -1;
}

int unread_end(struct unread *unread, int slot)
{
    pthread_mutex_lock(&unread->lock);
    const uint32_t client = unread->answers[slot].client;
    unread->bytes -= unread->answers[slot].bytes;
    unread->count--;
    unread->answers[slot] = (struct answer){0};
    const int next = next_of(unread, client);
    if (next >= 0)
        note(unread, next);
    pthread_mutex_unlock(&unread->lock);
    return next;
}

int unread_count(struct unread *unread)
{
    pthread_mutex_lock(&unread->lock);
    const int count = unread->count;
    pthread_mutex_unlock(&unread->lock);
    return count;
}
