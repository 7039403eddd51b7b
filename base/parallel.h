/* parallel.h: the same work for many items, by several threads.
 *
 * The threads live for one call.
 */
#ifndef LANCE_PARALLEL_H
#define LANCE_PARALLEL_H

enum { PARALLEL_MOST_THREADS = 64 };

/* Called once for each item from 0 to items - 1, in any order, from any thread. Returns 0 or an error code; after a
 * failure no further item is begun. */
typedef int parallel_work(void *context, int item);

/* Returns 0 or what the first failed item returned. `threads` is at least 1; the calling thread is one of them. */
int parallel_run(int items, int threads, parallel_work *work, void *context);

#endif
