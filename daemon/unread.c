/* unread.c: see unread.h. */
#include "daemon/unread.h"

#include <pthread.h>
#include <stdlib.h>

#include "daemon/log.h"

struct answer {
    uint32_t client; /* 0: none */
    uint64_t bytes;
};

struct unread {
    pthread_mutex_t lock; /* guards the rest */
    struct answer *answers;
    int slots, count;
    uint64_t bytes;
    uint32_t last_refused; /* the client that the log spoke of last */
};

struct unread *unread_open(int slots)
{
    struct unread *unread = calloc(1, sizeof *unread);
    if (unread == NULL)
        return NULL;
    unread->answers = calloc((size_t)slots, sizeof *unread->answers);
    if (unread->answers == NULL || pthread_mutex_init(&unread->lock, NULL) != 0) {
        free(unread->answers);
        free(unread);
        return NULL;
    }
    unread->slots = slots;
    return unread;
}

void unread_close(struct unread *unread)
{
    if (unread == NULL)
        return;
    pthread_mutex_destroy(&unread->lock);
    free(unread->answers);
    free(unread);
}

static bool may_send(const struct unread *unread, uint32_t client, uint64_t bytes)
{
    int count = 0;
    uint64_t held = 0;
    for (int i = 0; i < unread->slots; i++) {
        count += unread->answers[i].client == client;
        held += unread->answers[i].client == client ? unread->answers[i].bytes : 0;
    }
    return count == 0 || (count < UNREAD_MOST && held + bytes <= UNREAD_MOST_BYTES &&
                          unread->bytes + bytes <= UNREAD_MOST_BYTES_IN_ALL);
}

bool unread_begin(struct unread *unread, int slot, uint32_t client, uint64_t bytes)
{
    pthread_mutex_lock(&unread->lock);
    const bool may = may_send(unread, client, bytes), is_news = !may && unread->last_refused != client;
    if (may) {
        unread->answers[slot] = (struct answer){client, bytes};
        unread->count++;
        unread->bytes += bytes;
    } else {
        unread->last_refused = client;
    }
    pthread_mutex_unlock(&unread->lock);
    if (is_news)
        log_warning(NULL, "a client leaves its answers unread and gets no more until it reads them (%d answers or %d MB of one "
                          "client, %d MB in all)", UNREAD_MOST, UNREAD_MOST_BYTES >> 20, UNREAD_MOST_BYTES_IN_ALL >> 20);
    return may;
}

void unread_end(struct unread *unread, int slot)
{
    pthread_mutex_lock(&unread->lock);
    unread->bytes -= unread->answers[slot].bytes;
    unread->count--;
    unread->answers[slot] = (struct answer){0};
    pthread_mutex_unlock(&unread->lock);
}

int unread_count(struct unread *unread)
{
    pthread_mutex_lock(&unread->lock);
    const int count = unread->count;
    pthread_mutex_unlock(&unread->lock);
    return count;
}
