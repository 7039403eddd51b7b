/* nng_start.c: see nng_start.h. */
#include "protocol/nng_start.h"
#include "base/clock.h"

#include <errno.h>
#include <nng/nng.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    NNG_THREADS_PER_CPU = 3,      /* two for its callbacks, one for what runs out of time, */
    NNG_MOST_PER_CPU = 16 + 8,    /* at most 16 and 8 of them, */
    NNG_OTHER_THREADS = 7,        /* and one that polls, one that cleans up, one for the time, four for names */
    SPARE_THREADS = 1,
    SPARE_BYTES = 4 << 20,        /* for what it allocates at its start, and the first connections */
    START_SECONDS = 5,            /* the most that a start may take, */
    TRIALS_PER_START = 100        /* and as many times what the trial took, on a machine that is busy with others */
};

static int threads_of_nng(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    long per_cpu = NNG_THREADS_PER_CPU * (cpus > 1 ? cpus : 1);
    return (int)(per_cpu < NNG_MOST_PER_CPU ? per_cpu : NNG_MOST_PER_CPU) + NNG_OTHER_THREADS;
}

/* --- The trial --- */

struct trial {
    pthread_mutex_t lock;
    pthread_cond_t over;
    bool is_over;
};

static void *wait_for_the_others(void *argument)
{
    struct trial *trial = argument;
    pthread_mutex_lock(&trial->lock);
    while (!trial->is_over)
        pthread_cond_wait(&trial->over, &trial->lock);
    pthread_mutex_unlock(&trial->lock);
    return NULL;
}

/* Have `wanted` threads at the same time, and memory beside them; 0, or the system's reason. */
static int try_threads(int wanted, pthread_t *threads, int *started)
{
    struct trial trial = {.lock = PTHREAD_MUTEX_INITIALIZER, .over = PTHREAD_COND_INITIALIZER};
    int reason = 0;
    *started = 0;
    while (*started < wanted && (reason = pthread_create(&threads[*started], NULL, wait_for_the_others, &trial)) == 0)
        ++*started;
    void *spare = reason == 0 ? malloc(SPARE_BYTES) : NULL;
    if (reason == 0 && !spare)
        reason = ENOMEM;
    free(spare);
    pthread_mutex_lock(&trial.lock);
    trial.is_over = true;
    pthread_cond_broadcast(&trial.over);
    pthread_mutex_unlock(&trial.lock);
    for (int i = 0; i < *started; i++)
        pthread_join(threads[i], NULL);
    return reason;
}

/* --- The start --- */

static const char *program_name;

static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return; /* the exit status says it too */
}

/* nng crashed, aborted, or waits for ever. Its own words, if any, went before. */
static void end_in_words(int signal)
{
    (void)signal;
    say(program_name);
    say(": nng could not start its threads: too few are left, or too little memory; raise the limit of processes "
        "(pids.max, ulimit -u) or of address space (ulimit -v)\n");
    _exit(NNG_START_EXIT_STATUS);
}

/* The first thing that nng is asked for. */
static int start_guarded(unsigned longest_seconds)
{
    static const int signals[] = {SIGABRT, SIGSEGV, SIGALRM};
    enum { SIGNALS = sizeof signals / sizeof signals[0] };
    struct sigaction before[SIGNALS], action = {.sa_handler = end_in_words};
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < SIGNALS; i++)
        sigaction(signals[i], &action, &before[i]);
    alarm(longest_seconds);
    nng_aio *aio = NULL;
    int result = nng_aio_alloc(&aio, NULL, NULL);
    alarm(0);
    for (int i = 0; i < SIGNALS; i++)
        sigaction(signals[i], &before[i], NULL);
    nng_aio_free(aio);
    return result;
}

int nng_start(const char *program, struct error *error)
{
    int wanted = threads_of_nng() + SPARE_THREADS, started;
    double began = clock_seconds();
    pthread_t threads[NNG_MOST_PER_CPU + NNG_OTHER_THREADS + SPARE_THREADS];
    int reason = try_threads(wanted, threads, &started);
    if (reason != 0)
        return error_set(
            error, ERROR_NO_MEMORY,
            "nng needs %d threads and some memory beside them; %d could be started: %s; raise the limit of "
            "processes (pids.max, ulimit -u) or of address space (ulimit -v)",
            wanted, started, strerror(reason));
    program_name = program;
    int result = start_guarded(START_SECONDS + (unsigned)(TRIALS_PER_START * (clock_seconds() - began)));
    if (result != 0)
        return error_set(error, ERROR_NO_MEMORY,
                         "nng cannot start: %s; raise the limit of processes (pids.max, ulimit -u) "
                         "or of address space (ulimit -v)",
                         nng_strerror(result));
    return 0;
}
