/* private_daemon.c: see private_daemon.h. */
#include "tools/lancectl/private_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "tools/lancectl/interrupt.h"
#include "tools/lancectl/program.h"

/* Patience with a daemon that starts and that ends as in the Python client (starter.py), for the same reasons. */
enum { POLL_MS = 50, START_SECONDS = 60, END_SECONDS = 60, LOG_TAIL_BYTES = 400 };

struct private_daemon {
    pid_t pid;
    int lifeline; /* the daemon's standard input: it ends when this is closed, so also when lancectl dies; -1: none */
    char folder[32];
    char endpoint[64];
    char log[48];
};

static void sleep_ms(long milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* The child's part: never returns. `standard_input` is the other end of the lifeline. */
static void run_daemon(const struct private_daemon *daemon, int standard_input, const char *binary,
                       const char *model_dir, const char *precision)
{
    setsid();
    int log = open(daemon->log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (log < 0 || dup2(standard_input, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
        _exit(127);
    /* --lazy: what is wrong with the checkpoint is then told to the job, in a message of its own. */
    execlp(binary, "lanced", "--endpoint", daemon->endpoint, "--model", model_dir, "--lazy", "--on-term", "cancel",
           "--until-eof", precision ? "--precision" : (char *)NULL, precision, (char *)NULL);
    dprintf(2, "cannot start %s: %s; build it, or put it into PATH\n", binary, strerror(errno));
    _exit(127);
}

/* The end of the log as one line. */
static void read_log(const struct private_daemon *daemon, char text[LOG_TAIL_BYTES + 1])
{
    FILE *file = fopen(daemon->log, "rb");
    size_t length = 0;
    if (file) {
        if (!fseek(file, 0, SEEK_END) && ftell(file) > LOG_TAIL_BYTES)
            fseek(file, -LOG_TAIL_BYTES, SEEK_END);
        else
            rewind(file);
        length = fread(text, 1, LOG_TAIL_BYTES, file);
        fclose(file);
    }
    while (length && text[length - 1] == '\n')
        length--;
    text[length] = '\0';
    for (char *c = text; *c; c++)
        if (*c == '\n')
            *c = ' ';
}

static void remove_folder(const struct private_daemon *daemon)
{
    const char *socket = daemon->endpoint + strlen("ipc://");
    char lock[sizeof daemon->endpoint];
    snprintf(lock, sizeof lock, "%s.lock", socket); /* the daemon's guard against a second one */
    unlink(daemon->log);
    unlink(socket);
    unlink(lock);
    rmdir(daemon->folder);
}

static bool has_ended(struct private_daemon *daemon)
{
    if (daemon->pid > 0 && waitpid(daemon->pid, NULL, WNOHANG) == daemon->pid)
        daemon->pid = 0;
    return daemon->pid == 0;
}

/* Wait until it has ended or the time is over. */
static bool wait_for_end(struct private_daemon *daemon, int milliseconds)
{
    for (; milliseconds > 0 && !has_ended(daemon); milliseconds -= POLL_MS)
        sleep_ms(POLL_MS);
    return has_ended(daemon);
}

/* Connect as soon as it answers; ERROR_IO with its last words where it ends instead, or does not in time. */
static int connect_when_ready(struct private_daemon *daemon, struct client **client,
                              const struct client_options *connection, struct error *error)
{
    struct client_options options = *connection;
    options.endpoint = daemon->endpoint;
    const double deadline = clock_seconds() + START_SECONDS;
    for (;;) {
        bool ended = has_ended(daemon);
        int code = client_open(client, &options, error);
        if (code != ERROR_IO)
            return code;
        if (ended || clock_seconds() > deadline) {
            char log[LOG_TAIL_BYTES + 1];
            read_log(daemon, log);
            return error_set(error, ERROR_IO, "the private lanced %s: %s",
                             ended ? "ended at its start" : "does not answer", log);
        }
        if (interrupt_signal())
            return error_set(error, ERROR_CANCELLED, "interrupted while lanced started");
        sleep_ms(POLL_MS);
    }
}

int private_daemon_start(struct private_daemon **out, struct client **client, const char *model_dir,
                         const char *precision, const struct client_options *connection, struct error *error)
{
    *out = NULL;
    *client = NULL;
    struct private_daemon *daemon = calloc(1, sizeof *daemon);
    if (!daemon)
        return error_set(error, ERROR_NO_MEMORY, "no memory");
    strcpy(daemon->folder, "/tmp/lancectl-XXXXXX");
    if (!mkdtemp(daemon->folder)) {
        int reason = errno;
        free(daemon);
        return error_set(error, ERROR_IO, "cannot make a folder in /tmp for a private lanced: %s", strerror(reason));
    }
    snprintf(daemon->endpoint, sizeof daemon->endpoint, "ipc://%s/lanced.ipc", daemon->folder);
    snprintf(daemon->log, sizeof daemon->log, "%s/lanced.log", daemon->folder);
    char binary[4096];
    program_find_lanced(binary, sizeof binary);

    int ends[2] = {-1, -1};
    daemon->pid = pipe2(ends, O_CLOEXEC) ? -1 : fork();
    if (daemon->pid == 0)
        run_daemon(daemon, ends[0], binary, model_dir, precision);
    if (ends[0] >= 0)
        close(ends[0]);
    daemon->lifeline = ends[1];
    int code;
    if (daemon->pid < 0) {
        daemon->pid = 0;
        code = error_set(error, ERROR_IO, "cannot start a private lanced: %s", strerror(errno));
    } else {
        interrupt_set_private_daemon(daemon->pid);
        code = connect_when_ready(daemon, client, connection, error);
    }
    if (code) {
        private_daemon_stop(daemon, NULL);
        return code;
    }
    *out = daemon;
    return 0;
}

void private_daemon_stop(struct private_daemon *daemon, struct client *client)
{
    if (!daemon)
        return;
    interrupt_set_private_daemon(0);
    if (client) {
        cJSON *fields = json_object();
        struct error unused;
        json_add_text(fields, "mode", "cancel");
        if (json_is_complete(fields))
            client_request(client, "shutdown", fields, NULL, 0, NULL, &unused);
        cJSON_Delete(fields);
    } else if (daemon->pid > 0) {
        kill(daemon->pid, SIGTERM);
    }
    if (!wait_for_end(daemon, END_SECONDS * 1000)) {
        kill(daemon->pid, SIGKILL);
        waitpid(daemon->pid, NULL, 0);
    }
    if (daemon->lifeline >= 0)
        close(daemon->lifeline);
    remove_folder(daemon);
    free(daemon);
}

void private_daemon_leave(struct private_daemon *daemon)
{
    static const char stay[] = "stay\n";
    interrupt_set_private_daemon(0);
    (void)!write(daemon->lifeline, stay, sizeof stay - 1);
    close(daemon->lifeline);
    free(daemon);
}
