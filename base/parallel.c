/* parallel.c: see parallel.h. */
#include "base/parallel.h"

#include <pthread.h>
#include <stdatomic.h>

struct shared {
    parallel_work *work;
    void *context;
    int items;
    atomic_int next;
    atomic_int failed; /* the first code */
};

static void *take_items(void *argument)
{
    struct shared *shared = argument;
    int item;
    while (atomic_load(&shared->failed) == 0 && (item = atomic_fetch_add(&shared->next, 1)) < shared->items) {
        int none = 0;
        const int status = shared->work(shared->context, item);
        if (status != 0)
            atomic_compare_exchange_strong(&shared->failed, &none, status);
    }
    return NULL;
}

int parallel_run(int items, int threads, parallel_work *work, void *context)
{
    struct shared shared = {.work = work, .context = context, .items = items};
    pthread_t others[PARALLEL_MOST_THREADS];
    int started = 0;
    while (started + 1 < threads && started + 1 < items && started < PARALLEL_MOST_THREADS &&
           pthread_create(&others[started], NULL, take_items, &shared) == 0)
        started++; /* with fewer threads than asked for it takes longer, no more */
    take_items(&shared);
    for (int i = 0; i < started; i++)
        pthread_join(others[i], NULL);
    return atomic_load(&shared.failed);
}
