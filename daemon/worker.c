/* worker.c: see worker.h. */
#include "daemon/worker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "daemon/calibration.h"
#include "daemon/device.h"
#include "daemon/loading.h"
#include "daemon/log.h"
#include "daemon/recorder.h"
#include "daemon/result_cache.h"
#include "daemon/residency.h"
#include "daemon/runner.h"
#include "kernels/kernels.h"

struct worker {
    const struct options *options;
    void (*on_fatal)(void *context, enum worker_end why);
    void *context;
    struct device device;
    struct rooms rooms;
    struct result_cache *cache; /* NULL: no results are kept, or the journal keeps them */
    pthread_t thread;
    bool has_thread;
    bool is_useless; /* the thread's own: on_fatal was called */
    atomic_bool is_stopping;
    pthread_mutex_t lock; /* guards the rest */
    struct error fatal;
};

static void end_daemon(struct worker *worker, enum worker_end why, const struct error *error)
{
    worker->is_useless = true;
    pthread_mutex_lock(&worker->lock);
    worker->fatal = *error;
    pthread_mutex_unlock(&worker->lock);
    worker->on_fatal(worker->context, why);
}

/* A device that has failed for good needs a new process, and so a new daemon. */
static void check_device(struct worker *worker)
{
    const struct kernels *kernels = worker->device.kernels;
    if (!kernels->lost || worker->is_useless)
        return;
    struct error error;
    error_set(&error, ERROR_INTERNAL,
              "%s has failed and cannot be used by this process any more: lanced has to be started again",
              kernels->name);
    log_error(NULL, "%s", error.text);
    end_daemon(worker, WORKER_DEVICE_LOST, &error);
    if (worker->rooms.recorder) /* those that are put aside are the next daemon's */
        runner_stop(worker->rooms.runner);
}

/* A signal to stop ends the wait for a job, and open jobs at their next step. Without a model or a device the jobs that
 * a journal keeps wait for the next daemon. */
static bool is_to_end(const struct worker *worker)
{
    const bool leaves_jobs = worker->is_useless && worker->rooms.recorder;
    return (leaves_jobs || atomic_load(&worker->is_stopping)) && !runner_has_open(worker->rooms.runner);
}

/* The earlier of two times, of which 0 is never. */
static double earlier(double a, double b)
{
    return a <= 0 || (b > 0 && b < a) ? b : a;
}

static void *run(void *argument)
{
    struct worker *worker = argument;
    const struct rooms *rooms = &worker->rooms;
    struct error error;
    if (!worker->options->lazy && residency_load(rooms->residency, 0, &error) != 0 && !worker->device.kernels->lost)
        end_daemon(worker, WORKER_NO_MODEL, &error);
    while (!is_to_end(worker)) {
        if (!runner_has_open(rooms->runner) || loading_is_quick(rooms->loading))
            loading_serve(rooms->loading);
        jobs_hold_back(rooms->jobs, loading_is_wanted(rooms->loading));
        check_device(worker);
        if (is_to_end(worker))
            break;
        runner_turn(rooms->runner,
                    earlier(residency_idle_end(rooms->residency), calibration_due(rooms->calibration)));
        calibration_tick(rooms->calibration);
        residency_unload_idle(rooms->residency);
    }
    residency_unload(rooms->residency);
    return NULL;
}

int worker_open(struct worker **out, const struct options *options, struct jobs *jobs, struct recorder *recorder,
                void (*on_fatal)(void *context, enum worker_end why), void *context, struct error *error)
{
    *out = NULL;
    struct worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return error_set(error, ERROR_NO_MEMORY, "worker: out of memory");
    struct rooms *rooms = &worker->rooms;
    worker->options = options;
    rooms->jobs = jobs;
    rooms->recorder = recorder;
    worker->on_fatal = on_fatal;
    worker->context = context;
    pthread_mutex_init(&worker->lock, NULL);
    int code = device_open(&worker->device, options, error);
    rooms->device = &worker->device;
    if (code == 0 && !recorder && options->journal.cache_bytes > 0)
        code = result_cache_open(&worker->cache, options->journal.cache_bytes, error);
    if (options->journal.cache_bytes > 0)
        rooms->kept = recorder ? recorder_kept_results(recorder) : result_cache_results(worker->cache);
    if (code == 0)
        code = residency_open(&rooms->residency, options, worker->device.kernels, error);
    if (code == 0 && options->calibrate_file)
        code = calibration_open(&rooms->calibration, options->calibrate_file, options->calibrate_seconds, error);
    if (code == 0)
        residency_calibrate(rooms->residency, rooms->calibration);
    if (code == 0)
        code = loading_open(&rooms->loading, options, rooms->residency, jobs, error);
    if (code == 0)
        code = runner_open(&rooms->runner, options, jobs, rooms->residency, worker->device.kernels,
                           recorder_attempts(recorder), rooms->kept, error);
    if (code == 0) {
        runner_calibrate(rooms->runner, rooms->calibration);
        *out = worker;
    } else {
        worker_close(worker);
    }
    return code;
}

int worker_start(struct worker *worker, struct error *error)
{
    worker->has_thread = pthread_create(&worker->thread, NULL, run, worker) == 0;
    return worker->has_thread ? 0 : error_set(error, ERROR_NO_MEMORY, "worker: cannot start its thread");
}

void worker_close(struct worker *worker)
{
    if (!worker)
        return;
    struct rooms *rooms = &worker->rooms;
    if (worker->has_thread) {
        atomic_store(&worker->is_stopping, true);
        runner_stop(rooms->runner);
        jobs_poke(rooms->jobs);
        pthread_join(worker->thread, NULL);
    }
    runner_close(rooms->runner);
    loading_close(rooms->loading);
    residency_close(rooms->residency);
    calibration_close(rooms->calibration);
    result_cache_close(worker->cache);
    device_close(&worker->device);
    pthread_mutex_destroy(&worker->lock);
    free(worker);
}

void worker_fatal_error(struct worker *worker, struct error *out)
{
    pthread_mutex_lock(&worker->lock);
    *out = worker->fatal;
    pthread_mutex_unlock(&worker->lock);
}

const struct rooms *worker_rooms(const struct worker *worker)
{
    return &worker->rooms;
}
