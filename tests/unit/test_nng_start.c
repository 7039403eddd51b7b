/* Tests of starting nng where a thread is refused, at the trial and after it: this program's pthread_create, which
 * libnng calls too, fails from a given thread on. Every try is a process of its own. */
#include "protocol/nng_start.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { MOST_THREADS = 80, WORDS_BYTES = 4000, STARTED = 42 };

static atomic_int threads_left = MOST_THREADS;
static atomic_int threads_started;

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    if (atomic_fetch_sub(&threads_left, 1) <= 0)
        return EAGAIN;
    atomic_fetch_add(&threads_started, 1);
    return real(thread, attributes, run, argument);
}

struct try {
    pid_t pid;
    int words_fd;
};

/* Start nng in a process that may have so many threads, one after the other; it ends with STARTED, or with words. */
static struct try begin_try(int threads)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    struct try try = {.pid = fork(), .words_fd = ends[0]};
    if (try.pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        atomic_store(&threads_left, threads);
        struct error error;
        if (nng_start("test", &error) == 0)
            _exit(STARTED);
        dprintf(STDERR_FILENO, "test: %s\n", error.text);
        _exit(error.code == ERROR_NO_MEMORY ? NNG_START_EXIT_STATUS : 2);
    }
    close(ends[1]);
    return try;
}

static int end_try(const struct try *try, char words[WORDS_BYTES])
{
    size_t length = 0;
    for (ssize_t more; (more = read(try->words_fd, words + length, WORDS_BYTES - 1 - length)) > 0;)
        length += (size_t)more;
    words[length] = '\0';
    close(try->words_fd);
    int status;
    assert_int_equal(waitpid(try->pid, &status, 0), try->pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int trial, all; /* threads that the trial takes, and that with nng's */

/* Counted in processes of their own. */
static int count_threads(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct error error;
        int code = nng_start("test", &error), count = atomic_load(&threads_started);
        _exit(code == 0 && write(ends[1], &count, sizeof count) == sizeof count ? 0 : 1);
    }
    int status;
    assert_int_equal(read(ends[0], &all, sizeof all), sizeof all);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(ends[0]);
    close(ends[1]);
    for (trial = 1; trial < all; trial++) { /* what nng lacks is said in other words than what the trial lacks */
        char words[WORDS_BYTES];
        struct try try = begin_try(trial);
        end_try(&try, words);
        if (!strstr(words, "could be started"))
            break;
    }
    return 0;
}

static void the_trial_takes_one_thread_more_than_nng(void **state)
{
    (void)state;
    assert_int_equal(trial, all - trial + 1);
}

static void whichever_thread_is_refused_there_are_words_and_an_exit_status(void **state)
{
    (void)state;
    struct try tries[MOST_THREADS];
    for (int threads = 0; threads <= all; threads++)
        tries[threads] = begin_try(threads);
    for (int threads = 0; threads <= all; threads++) {
        char words[WORDS_BYTES];
        int status = end_try(&tries[threads], words);
        assert_int_equal(status, threads == all ? STARTED : NNG_START_EXIT_STATUS);
        if (threads < all && !strstr(words, "pids.max, ulimit -u"))
            fail_msg("%d threads, and no words about it: %s", threads, words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_trial_takes_one_thread_more_than_nng),
        cmocka_unit_test(whichever_thread_is_refused_there_are_words_and_an_exit_status),
    };
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    puts("1..1\nok 1 # SKIP the sanitizers have a pthread_create of their own");
    return 0;
#endif
    return cmocka_run_group_tests(tests, count_threads, NULL);
}
