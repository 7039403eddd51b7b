/* The thread pool of the CPU backend. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/cpu/pool.h"

enum { TASKS = 1000, THREADS = 4 };

struct tally {
    int done[TASKS];          /* each written by its own task only */
    atomic_int in_use[THREADS];
    atomic_int clashes;       /* tasks that found their thread's number taken */
};

static void count_task(void *context, int index, int thread)
{
    struct tally *tally = context;
    if (atomic_fetch_add(&tally->in_use[thread], 1))
        atomic_fetch_add(&tally->clashes, 1);
    tally->done[index]++;
    atomic_fetch_sub(&tally->in_use[thread], 1);
}

static void every_task_runs_once_on_a_thread_of_its_own(void **state)
{
    (void)state;
    struct pool *pool = pool_open(THREADS);
    assert_non_null(pool);
    assert_int_equal(pool_threads(pool), THREADS);
    static struct tally tally;
    for (int i = 0; i < 20; i++)
        pool_run(pool, TASKS, count_task, &tally);
    for (int i = 0; i < TASKS; i++)
        assert_int_equal(tally.done[i], 20);
    assert_int_equal(atomic_load(&tally.clashes), 0);
    pool_close(pool);
}

static void bump(void *context, int index, int thread)
{
    (void)thread;
    ((int *)context)[index]++;
}

static void short_loops_in_quick_succession_and_after_a_rest_all_finish(void **state)
{
    (void)state;
    struct pool *pool = pool_open(THREADS);
    assert_non_null(pool);
    int done[3] = {0};
    for (int i = 0; i < 5000; i++) {
        pool_run(pool, 3, bump, done);
        if (i % 1000 == 0)
            usleep(2000); /* long enough for the workers to sleep */
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(done[i], 5000);
    pool_run(pool, 0, bump, NULL); /* no task: nothing happens */
    pool_close(pool);
}

static void a_pool_opens_and_closes_without_work(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++)
        pool_close(pool_open(3));
    struct pool *pool = pool_open(0);
    assert_non_null(pool);
    assert_true(pool_threads(pool) >= 1);
    pool_close(pool);
    pool_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_once_on_a_thread_of_its_own),
        cmocka_unit_test(short_loops_in_quick_succession_and_after_a_rest_all_finish),
        cmocka_unit_test(a_pool_opens_and_closes_without_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
