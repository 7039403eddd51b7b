/* daemon.c: see daemon.h.
 *
 * The main thread puts the parts together and then only waits: for signals (signalfd), for word from other threads
 * (an eventfd: shutdown asked for, default model not loadable), for the end of standard input (--until-eof), and for
 * the clock, to let old results expire. On the way out it takes no more jobs, waits for those that are there (or
 * cancels them, or leaves them to the next daemon where they are kept) and for their clients to fetch the results, and
 * takes the parts down in the reverse order.
 */
#include "daemon/daemon.h"

#include <errno.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "daemon/blobs.h"
#include "daemon/instance.h"
#include "daemon/jobs/jobs.h"
#include "daemon/journal/check.h"
#include "daemon/log.h"
#include "daemon/machine_report.h"
#include "daemon/options.h"
#include "daemon/recorder.h"
#include "daemon/server.h"
#include "daemon/worker.h"
#include "protocol/nng_start.h"

enum {
    THREAD_STACK_BYTES = 4 << 20,          /* twice what glibc takes where there is no limit */
    MOST_BYTES_BESIDE_PIECE = 64 << 10,    /* in a message: its envelope, and what nng and malloc add */
    TICK_MS = 1000,
    ENDING_TICK_MS = 20,
    CLOSE_SECONDS = 5,
    FETCH_SECONDS = 10, /* how long clients may take to fetch what was made while shutting down, */
    HEAR_SECONDS = 1    /* and to hear that their jobs have failed with the device */
};

enum { EXIT_ERROR = 1, EXIT_COMMAND_LINE = 2, EXIT_DEVICE_LOST = 3 }; /* docs/lanced.md */

/* In the order of urgency. */
enum wish { WISH_NONE, WISH_FINISH, WISH_LAY_ASIDE, WISH_CANCEL, WISH_OUT_OF_TIME, WISH_DEVICE_LOST, WISH_FATAL };

struct daemon {
    struct options options;
    struct instance *instances[OPTIONS_MAX_ENDPOINTS];
    struct jobs *jobs;
    struct recorder *recorder; /* NULL without --state */
    struct worker *worker;
    struct service *service;
    struct server *server;
    int signal_fd, wish_fd;
    int stdin_fd; /* -1: not watched, or ended */
    atomic_int wish;
};

/* Any thread. */
static void raise_wish(struct daemon *daemon, enum wish wish)
{
    int current = atomic_load(&daemon->wish);
    while (current < (int)wish && !atomic_compare_exchange_weak(&daemon->wish, &current, wish))
        ;
    uint64_t one = 1;
    if (write(daemon->wish_fd, &one, sizeof one) != (ssize_t)sizeof one)
        log_error(NULL, "cannot wake the main thread: %s", strerror(errno));
}

static void on_shutdown(void *context, bool cancel)
{
    raise_wish(context, cancel ? WISH_CANCEL : WISH_FINISH);
}

static void on_fatal(void *context, enum worker_end why)
{
    raise_wish(context, why == WORKER_DEVICE_LOST ? WISH_DEVICE_LOST : WISH_FATAL);
}

/* What becomes of the jobs after a signal or the end of standard input: with a journal they are the next daemon's. */
static void end_by_signal(struct daemon *daemon, const char *what, bool may_cancel)
{
    const bool cancel = daemon->options.cancel_on_term || (may_cancel && !daemon->recorder);
    const enum wish wish = cancel ? WISH_CANCEL : daemon->recorder ? WISH_LAY_ASIDE : WISH_FINISH;
    log_info(NULL, "%s: %s", what,
             wish == WISH_CANCEL      ? "cancelling all jobs"
             : wish == WISH_LAY_ASIDE ? "laying the jobs aside, for the next lanced with this state folder"
                                      : "finishing the jobs that are there (a signal more cancels them)");
    raise_wish(daemon, wish);
}

static void read_signal(struct daemon *daemon)
{
    struct signalfd_siginfo info;
    if (read(daemon->signal_fd, &info, sizeof info) != (ssize_t)sizeof info)
        return;
    if (info.ssi_signo == SIGXCPU) { /* one more each second, until the hard limit kills */
        if (atomic_load(&daemon->wish) < WISH_OUT_OF_TIME)
            log_error(NULL, "the limit of processor time (ulimit -t) is reached: %s",
                      daemon->recorder ? "laying the jobs aside" : "cancelling all jobs");
        raise_wish(daemon, WISH_OUT_OF_TIME);
        return;
    }
    if (info.ssi_signo == SIGHUP && daemon->options.tokens_path) {
        if (daemon->service)
            service_reread_tokens(daemon->service);
        return;
    }
    const bool again = atomic_load(&daemon->wish) != WISH_NONE;
    end_by_signal(daemon,
                  info.ssi_signo == SIGINT   ? "signal INT"
                  : info.ssi_signo == SIGHUP ? "signal HUP"
                                             : "signal TERM",
                  again);
}

/* What comes in is of no interest, only that nothing can come any more; but who says "stay" may go without ending the
 * daemon. */
static void read_stdin(struct daemon *daemon)
{
    static const char stay[] = "stay\n";
    char said[256];
    ssize_t length = read(daemon->stdin_fd, said, sizeof said);
    if (length < 0 && errno == EINTR)
        return;
    if (length > 0) {
        if ((size_t)length == sizeof stay - 1 && memcmp(said, stay, sizeof stay - 1) == 0)
            daemon->stdin_fd = -1;
        return;
    }
    daemon->stdin_fd = -1;
    end_by_signal(daemon, "standard input was closed", false);
}

/* Sleep until a signal, a wish, the end of standard input or the time. */
static void wait_a_moment(struct daemon *daemon, int timeout_ms)
{
    struct pollfd files[3] = {{.fd = daemon->signal_fd, .events = POLLIN},
                              {.fd = daemon->wish_fd, .events = POLLIN},
                              {.fd = daemon->stdin_fd, .events = POLLIN}}; /* poll skips a negative one */
    if (poll(files, 3, timeout_ms) <= 0)
        return;
    if (files[2].revents != 0)
        read_stdin(daemon);
    uint64_t count;
    if (files[1].revents != 0 && read(daemon->wish_fd, &count, sizeof count) < 0)
        log_debug(NULL, "wish: %s", strerror(errno));
    if (files[0].revents != 0)
        read_signal(daemon);
}

/* Whether clients have had what they need, so many seconds after the last job ended. */
static bool clients_are_served(struct daemon *daemon, enum wish wish, double seconds)
{
    if (wish == WISH_DEVICE_LOST && seconds < HEAR_SECONDS)
        return false;
    bool is_hurried = wish == WISH_CANCEL || wish == WISH_OUT_OF_TIME;
    return is_hurried || jobs_unfetched(daemon->jobs) == 0 || seconds >= FETCH_SECONDS;
}

/* Wait until no job is left and their results are fetched; with a journal only where that is asked for, or jobs are to
 * be cancelled: worker_close lays the open one aside. */
static void finish_jobs(struct daemon *daemon)
{
    const bool is_kept = daemon->recorder != NULL;
    double idle_since = -1;
    for (;;) {
        enum wish wish = (enum wish)atomic_load(&daemon->wish);
        const bool is_hopeless = wish == WISH_OUT_OF_TIME || wish == WISH_FATAL;
        /* without a device they fail and say why, or wait for the next daemon */
        jobs_shut(daemon->jobs, wish == WISH_CANCEL || (is_hopeless && !is_kept));
        if (wish == WISH_FATAL || wish == WISH_LAY_ASIDE || (is_hopeless && is_kept))
            return;
        if (jobs_active(daemon->jobs) > 0 && !(wish == WISH_DEVICE_LOST && is_kept))
            idle_since = -1;
        else if (idle_since < 0)
            idle_since = clock_seconds();
        if (idle_since >= 0 && clients_are_served(daemon, wish, clock_seconds() - idle_since))
            return;
        wait_a_moment(daemon, ENDING_TICK_MS);
    }
}

/* Jobs outlive this process, where that is asked for. */
static int open_recorder(struct daemon *daemon, struct error *error)
{
    const struct options *options = &daemon->options;
    if (!options->state_folder)
        return 0;
    int code = recorder_open(&daemon->recorder, options->state_folder, &options->journal, daemon->jobs, error);
    return code != 0 ? code : recorder_recover(daemon->recorder, error);
}

static int serve(struct daemon *daemon, struct error *error)
{
    const struct options *options = &daemon->options;
    int status = nng_start("lanced", error);
    for (int i = 0; status == 0 && i < options->endpoint_count; i++)
        status = instance_open(&daemon->instances[i], &options->endpoints[i], error);
    if (status == 0)
        status = jobs_open(&daemon->jobs, &options->jobs, error);
    if (status == 0)
        status = open_recorder(daemon, error);
    if (status == 0)
        status = worker_open(&daemon->worker, options, daemon->jobs, daemon->recorder, on_fatal, daemon, error);
    if (status == 0)
        status = service_open(&daemon->service, options, worker_rooms(daemon->worker), on_shutdown, daemon, error);
    if (status == 0)
        status = server_open(&daemon->server, options, daemon->service, error);
    if (status == 0) /* not before: a port that is in use is told at once, not after a model was loaded for nothing */
        status = worker_start(daemon->worker, error);
    if (status != 0)
        return status;
    for (int i = 0; i < options->endpoint_count; i++)
        log_info(NULL, "lanced %s answers at %s (process %ld)", LANCED_VERSION, options->endpoints[i].url,
                 (long)getpid());
    while (atomic_load(&daemon->wish) == WISH_NONE) {
        wait_a_moment(daemon, TICK_MS);
        jobs_sweep(daemon->jobs);
        service_sweep(daemon->service);
        server_check(daemon->server);
    }
    finish_jobs(daemon);
    if (atomic_load(&daemon->wish) == WISH_OUT_OF_TIME)
        return error_set(error, ERROR_INTERNAL, "ended because its limit of processor time (ulimit -t) is reached");
    if (atomic_load(&daemon->wish) < WISH_DEVICE_LOST)
        return 0;
    worker_fatal_error(daemon->worker, error);
    return error->code;
}

/* Every connection takes a file descriptor; many systems allow 1024 where a program does not ask for more. */
static void allow_many_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        log_debug(NULL, "cannot raise the limit of open files: %s", strerror(errno));
}

/* What a write may raise is the error of that write, and no more: a reader that ended, a limit on the size of files
 * (of the log, say), a terminal whose background programs are to write nothing. */
static void ignore_signals_of_writes(void)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGTTOU, SIG_IGN);
}

/* Signals are blocked before any thread exists, so that only the signalfd sees them. */
static int open_files(struct daemon *daemon, struct error *error)
{
    sigset_t set;
    struct sigaction hangup;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGXCPU);
    sigaction(SIGHUP, NULL, &hangup);
    if (hangup.sa_handler != SIG_IGN || daemon->options.tokens_path) /* as nohup has it */
        sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    mapped_files_guard(); /* model files may shrink under us */
    daemon->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    daemon->stdin_fd = daemon->options.until_eof ? STDIN_FILENO : -1;
    daemon->wish_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (daemon->signal_fd < 0 || daemon->wish_fd < 0)
        return error_set(error, ERROR_IO, "cannot watch for signals: %s", strerror(errno));
    return 0;
}

/* For server_close, which nng can keep from returning, and for closing what a broken card left: nobody waits for
 * anything any more, so just end. The next daemon clears the socket away. */
static volatile sig_atomic_t exit_status;

static void end_process(int signal)
{
    (void)signal;
    _exit(exit_status);
}

/* Have what a stage of a job frees go back to the system at once. By default glibc comes to keep blocks of up to 32
 * MiB, and a job then takes the sum of its stages instead of the largest, which is what admission counts. But a message
 * with a piece of a payload is kept, and the room of a few: fetched from the system anew for every piece, and cleared
 * by it, they took longer than to be sent. Where
 * address space is limited (ulimit -v), it is not handed out to single threads, 64 MiB each, of which others then
 * get none. And every thread has the same stack: by default it is as large as `ulimit -s` says, which may be too
 * little to read a message, or too much. */
static void set_memory(void)
{
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, BLOBS_PIECE_BYTES + MOST_BYTES_BESIDE_PIECE);
    mallopt(M_TRIM_THRESHOLD, 4 * BLOBS_PIECE_BYTES);
    struct rlimit space;
    if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY)
        mallopt(M_ARENA_MAX, 1);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES);
    pthread_setattr_default_np(&attributes);
    pthread_attr_destroy(&attributes);
#endif
}

/* What --help printed may not have arrived: a full disk, say. */
static int flush_output(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    log_say("cannot write to the standard output");
    return EXIT_ERROR;
}

/* lanced --check, with --state DIR or without */
static int check(const struct options *options)
{
    struct error error;
    log_set_level(LOG_LEVEL_ERROR); /* what is found is what is printed */
    int code = options->state_folder
                     ? journal_check(options->state_folder, &options->journal, stdout, &error)
                     : machine_report_print(options, stdout, &error);
    if (code != 0)
        log_say(error.text);
    return code != 0 ? EXIT_ERROR : flush_output();
}

/* For programs that show what a daemon would offer before there is one. */
static int list_models(const struct options *options)
{
    cJSON *names = json_array();
    for (int i = 0; i < options->model_count; i++)
        json_append_text(names, options->models[i].name);
    char *text = json_print(names);
    cJSON_Delete(names);
    if (!text) {
        log_say("no memory for the list of models");
        return EXIT_ERROR;
    }
    puts(text);
    cJSON_free(text);
    return flush_output();
}

int daemon_run(int argc, char **argv)
{
    set_memory();
    static struct daemon daemon; /* too large for comfort on the stack; there is one */
    ignore_signals_of_writes();
    struct error error;
    enum options_action action;
    if (options_read(&daemon.options, &action, argc, argv, &error) != 0) {
        log_say(error.text);
        return EXIT_COMMAND_LINE;
    }
    if (action == OPTIONS_EXIT)
        return flush_output();
    if (daemon.options.list_models)
        return list_models(&daemon.options);
    if (daemon.options.check)
        return check(&daemon.options);
    log_set_level((enum log_level)daemon.options.log_level);
    if (daemon.options.log_json)
        log_as_json();
    allow_many_files();
    int code = open_files(&daemon, &error);
    if (code == 0)
        code = log_open(&error);
    if (code == 0)
        code = serve(&daemon, &error);
    if (code != 0)
        log_say(error.text);
    exit_status = code == 0 ? 0 : atomic_load(&daemon.wish) == WISH_DEVICE_LOST ? EXIT_DEVICE_LOST : EXIT_ERROR;
    signal(SIGALRM, end_process);
    alarm(CLOSE_SECONDS);
    server_close(daemon.server);
    alarm(exit_status == EXIT_DEVICE_LOST ? CLOSE_SECONDS : 0); /* who knows what the driver of a broken card does */
    service_close(daemon.service);
    worker_close(daemon.worker);
    recorder_close(daemon.recorder);
    jobs_close(daemon.jobs);
    for (int i = 0; i < daemon.options.endpoint_count; i++)
        instance_close(daemon.instances[i]);
    if (code == 0)
        log_info(NULL, "ended");
    log_close();
    return exit_status;
}
