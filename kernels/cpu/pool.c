/* pool.c: see pool.h.
 *
 * The loop in progress is described by `task`, `context`, `tasks` under `mutex`; indices
 * are drawn from the atomic `next`. A worker joins a loop by counting itself in `running`
 * under the mutex, and pool_run waits only for those that joined: a worker that the
 * system has not scheduled yet does not hold up a loop that the others have finished.
 * Workers spin on `generation` for a short while before they sleep, because the
 * operators of one layer follow each other within microseconds.
 */
#include "kernels/cpu/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

enum { SPINS = 2000, MAX_THREADS = 1024 };

struct worker {
    struct pool *pool;
    pthread_t thread;
    int index; /* 1..threads-1; the caller of pool_run is 0 */
};

struct pool {
    int threads;
    int started;
    struct worker *workers;

    pthread_mutex_t mutex;
    pthread_cond_t work;     /* a loop was opened, or the pool closes */
    pthread_cond_t finished; /* running fell to 0 */
    bool closing;
    bool open;               /* a loop may be joined */
    int running;             /* workers inside the loop */
    void (*task)(void *context, int index, int thread);
    void *context;
    int tasks;

    const atomic_bool *cancelled; /* or NULL; changes only between loops */

    atomic_uint generation;  /* counts loops, and the closing of the pool */
    atomic_int next;
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

bool pool_is_cancelled(const struct pool *pool)
{
    return pool->cancelled && atomic_load_explicit(pool->cancelled, memory_order_relaxed);
}

static void draw_tasks(struct pool *pool, void (*task)(void *, int, int), void *context, int tasks, int thread)
{
    for (;;) {
        int index = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (index >= tasks || pool_is_cancelled(pool))
            return;
        task(context, index, thread);
    }
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    struct pool *pool = worker->pool;
    unsigned seen = 0;
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load_explicit(&pool->generation, memory_order_relaxed) == seen; i++)
            relax();
        pthread_mutex_lock(&pool->mutex);
        while (atomic_load_explicit(&pool->generation, memory_order_relaxed) == seen)
            pthread_cond_wait(&pool->work, &pool->mutex);
        seen = atomic_load_explicit(&pool->generation, memory_order_relaxed);
        if (pool->closing) {
            pthread_mutex_unlock(&pool->mutex);
            return NULL;
        }
        if (pool->open) {
            pool->running++;
            void (*task)(void *, int, int) = pool->task;
            void *context = pool->context;
            int tasks = pool->tasks;
            pthread_mutex_unlock(&pool->mutex);
            draw_tasks(pool, task, context, tasks, worker->index);
            pthread_mutex_lock(&pool->mutex);
            if (--pool->running == 0)
                pthread_cond_signal(&pool->finished);
        }
        pthread_mutex_unlock(&pool->mutex);
    }
}

struct pool *pool_open(int threads)
{
    if (threads <= 0) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        threads = online > 0 ? (int)online : 1;
    }
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pool->threads = threads;
    pool->workers = calloc((size_t)threads, sizeof *pool->workers);
    if (!pool->workers) {
        free(pool);
        return NULL;
    }
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->finished, NULL);
    for (int i = 1; i < threads; i++) {
        pool->workers[i] = (struct worker){.pool = pool, .index = i};
        if (pthread_create(&pool->workers[i].thread, NULL, worker_main, &pool->workers[i])) {
            pool_close(pool);
            return NULL;
        }
        pool->started++;
    }
    return pool;
}

void pool_close(struct pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->mutex);
    pool->closing = true;
    atomic_fetch_add(&pool->generation, 1);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 1; i <= pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->finished);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->workers);
    free(pool);
}

int pool_threads(const struct pool *pool)
{
    return pool->threads;
}

void pool_watch(struct pool *pool, const atomic_bool *cancelled)
{
    pool->cancelled = cancelled;
}

void pool_run(struct pool *pool, int tasks, void (*task)(void *context, int index, int thread), void *context)
{
    if (tasks <= 1 || pool->threads == 1) {
        for (int i = 0; i < tasks && !pool_is_cancelled(pool); i++)
            task(context, i, 0);
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    pool->task = task;
    pool->context = context;
    pool->tasks = tasks;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    pool->open = true;
    atomic_fetch_add_explicit(&pool->generation, 1, memory_order_relaxed);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);

    draw_tasks(pool, task, context, tasks, 0);

    pthread_mutex_lock(&pool->mutex);
    pool->open = false;
    while (pool->running)
        pthread_cond_wait(&pool->finished, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}
