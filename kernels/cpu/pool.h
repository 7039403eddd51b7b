/* pool.h: the CPU backend's threads.
 *
 * A pool runs one parallel loop at a time: pool_run hands the indices 0..tasks-1 to the
 * pool's threads, the caller among them, and returns when every task is done. Which
 * thread runs which task is left to chance, so a task must write only what belongs to
 * its index; `thread` (0..threads-1) names the scratch memory it may use meanwhile.
 */
#ifndef LANCE_CPU_POOL_H
#define LANCE_CPU_POOL_H

#include <stdatomic.h>
#include <stdbool.h>

struct pool;

/* `threads` counts the caller: 1 starts no thread at all, 0 means one per online core.
 * Returns NULL when memory or threads are exhausted. */
struct pool *pool_open(int threads);
void pool_close(struct pool *pool); /* NULL is allowed */
int pool_threads(const struct pool *pool);

/* From now on, while *cancelled is true, tasks that have not begun are left out. NULL: none are. */
void pool_watch(struct pool *pool, const atomic_bool *cancelled);
/* Whether it is true. When it is not after a loop, no task of that loop was left out. */
bool pool_is_cancelled(const struct pool *pool);

void pool_run(struct pool *pool, int tasks, void (*task)(void *context, int index, int thread), void *context);

#endif
