/* log.c: see log.h.
 *
 * Lines wait in a ring of bytes for the one thread that writes them. Who logs waits for that thread as well, so that
 * a line is out before what it tells of goes on, but only as long as PATIENCE_MS, and not at all while the writer is
 * stuck: a full pipe, a terminal stopped with Ctrl-S. Positions count the bytes since the start; the lock guards
 * them all.
 */
#include "daemon/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/utf8.h"

enum {
    LINE_BYTES = 1200,
    QUEUE_BYTES = 256 << 10, /* some 2000 lines */
    PIECE_BYTES = 16 << 10,  /* the most that is written at once */
    PATIENCE_MS = 200,
    CLOSE_MS = 1000
};

static const char *const level_names[] = {"error", "warning", "info", "debug"};
static enum log_level highest = LOG_LEVEL_INFO;
static bool is_json;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t filled, emptied;
    pthread_t thread;
    bool is_open, is_closing;
    bool is_stuck;          /* a line was not written in time; ends with the next one that is */
    char bytes[QUEUE_BYTES];
    uint64_t put, written;  /* positions */
    uint64_t lost, told;    /* lines since the start, and how many of them a line of the log has told of */
    uint64_t told_before, telling_ends; /* of the last such line: what was told before, and where it ends */
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER};

void log_set_level(enum log_level level)
{
    highest = level;
}

void log_as_json(void)
{
    is_json = true;
}

int log_level_of(const char *name)
{
    for (int i = 0; i < (int)(sizeof level_names / sizeof level_names[0]); i++)
        if (strcmp(name, level_names[i]) == 0)
            return i;
    return -1;
}

/* --- The thread that writes ------------------------------------------------------------ */

/* Write all of it, however long that takes. False when it cannot be written. */
static bool write_all(const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t count = write(STDERR_FILENO, bytes, length);
        if (count >= 0) {
            bytes += count;
            length -= (size_t)count;
        } else if (errno == EAGAIN) { /* somebody else made the pipe or terminal that we share a non-blocking one */
            struct pollfd file = {.fd = STDERR_FILENO, .events = POLLOUT};
            poll(&file, 1, -1);
        } else if (errno != EINTR)
            return false;
    }
    return true;
}

/* Text without control characters as the inside of a JSON string, as far as it goes with `reserve` bytes left; returns
 * the length of the line. Made here, since lines are also made when there is no memory. */
static size_t add_escaped(char line[LINE_BYTES], size_t at, const char *text, size_t reserve)
{
    for (; *text != '\0' && at + 2 + reserve < LINE_BYTES; text++) {
        if (*text == '"' || *text == '\\')
            line[at++] = '\\';
        line[at++] = *text;
    }
    while (*text != '\0' && at > 0 && ((unsigned char)*text & 0xc0) == 0x80) /* cut between characters */
        text--, at--;
    line[at] = '\0';
    return at;
}

/* A whole line of a text, of which there is no more than there is room for; returns the length. */
static size_t make_line(char line[LINE_BYTES], enum log_level level, const char *job, char *text)
{
    struct timespec now;
    struct tm utc;
    char when[40];
    utf8_make_line(text);
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    const size_t seconds = strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(when + seconds, sizeof when - seconds, ".%03ldZ", now.tv_nsec / 1000000);
    if (!is_json) {
        snprintf(line, LINE_BYTES - 1, "%s %-7s %s%s%s%s", when, level_names[level],
                 job ? "job " : "", job ? job : "", job ? ": " : "", text);
        utf8_make_line(line); /* it may have been cut within a character */
        const size_t end = strlen(line);
        line[end] = '\n';
        return end + 1;
    }
    size_t at = (size_t)snprintf(line, LINE_BYTES, "{\"time\":\"%s\",\"level\":\"%s\",", when, level_names[level]);
    if (job)
        at += (size_t)snprintf(line + at, LINE_BYTES - at, "\"job\":\"%.64s\",", job);
    at += (size_t)snprintf(line + at, LINE_BYTES - at, "\"message\":\"");
    at = add_escaped(line, at, text, sizeof "\"}\n");
    return at + (size_t)snprintf(line + at, LINE_BYTES - at, "\"}\n");
}

/* The caller holds the lock and has seen that there is room. */
static void put_bytes(const char *bytes, size_t length)
{
    size_t at = (size_t)(queue.put % QUEUE_BYTES), first = length < QUEUE_BYTES - at ? length : QUEUE_BYTES - at;
    memcpy(queue.bytes + at, bytes, first);
    memcpy(queue.bytes, bytes + first, length - first);
    queue.put += length;
    pthread_cond_signal(&queue.filled);
}

static bool has_room(size_t length)
{
    return queue.put - queue.written + length <= QUEUE_BYTES;
}

/* A line that says how many are missing here, one at a time. The caller holds the lock. */
static void tell_of_lost_lines(void)
{
    char line[LINE_BYTES], text[LINE_BYTES];
    if (queue.lost == queue.told || queue.telling_ends > queue.written)
        return;
    snprintf(text, sizeof text, "%llu lines are missing here: nobody read the log, or it could not be written",
             (unsigned long long)(queue.lost - queue.told));
    const size_t at = make_line(line, LOG_LEVEL_WARNING, NULL, text);
    if (!has_room(at))
        return;
    put_bytes(line, at);
    queue.told_before = queue.told;
    queue.told = queue.lost;
    queue.telling_ends = queue.put;
}

/* The next `length` bytes could not be written. The caller holds the lock. */
static void lose(const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        queue.lost += bytes[i] == '\n';
    if (queue.telling_ends > queue.written && queue.telling_ends <= queue.written + length) {
        queue.lost--;
        queue.told = queue.told_before;
    }
}

static void *write_lines(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&queue.lock);
    for (;;) {
        while (queue.put == queue.written && !queue.is_closing)
            pthread_cond_wait(&queue.filled, &queue.lock);
        if (queue.put == queue.written)
            break;
        size_t at = (size_t)(queue.written % QUEUE_BYTES), length = (size_t)(queue.put - queue.written);
        if (length > QUEUE_BYTES - at)
            length = QUEUE_BYTES - at;
        if (length > PIECE_BYTES)
            length = PIECE_BYTES;
        pthread_mutex_unlock(&queue.lock); /* nobody touches these bytes until `written` is past them */
        bool is_written = write_all(queue.bytes + at, length);
        pthread_mutex_lock(&queue.lock);
        if (!is_written)
            lose(queue.bytes + at, length);
        queue.written += length;
        queue.is_stuck = false;
        if (is_written && queue.put == queue.written)
            tell_of_lost_lines();
        pthread_cond_broadcast(&queue.emptied);
    }
    pthread_mutex_unlock(&queue.lock);
    return NULL;
}

/* Wait until everything up to a position is written, or nothing was for so long. The caller holds the lock. */
static bool wait_for(uint64_t position, long patience_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += patience_ms % 1000 * 1000000;
    until.tv_sec += patience_ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (queue.written < position)
        if (pthread_cond_timedwait(&queue.emptied, &queue.lock, &until) == ETIMEDOUT)
            return false;
    return true;
}

/* --- For all threads ------------------------------------------------------------------- */

/* A whole line, with its end. */
static void put_line(const char *line, size_t length)
{
    pthread_mutex_lock(&queue.lock);
    if (!queue.is_open) {
        write_all(line, length);
        pthread_mutex_unlock(&queue.lock);
        return;
    }
    tell_of_lost_lines();
    if (queue.lost == queue.told && has_room(length)) {
        put_bytes(line, length);
        if (!queue.is_stuck)
            queue.is_stuck = !wait_for(queue.put, PATIENCE_MS);
    } else
        queue.lost++;
    pthread_mutex_unlock(&queue.lock);
}

void log_line(enum log_level level, const char *job, const char *format, ...)
{
    if (level > highest)
        return;
    char line[LINE_BYTES], text[LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    if (vsnprintf(text, sizeof text, format, arguments) < 0)
        text[0] = '\0';
    va_end(arguments);
    put_line(line, make_line(line, level, job, text));
}

void log_say(const char *text)
{
    char line[LINE_BYTES], copy[LINE_BYTES];
    if (is_json) {
        snprintf(copy, sizeof copy, "%s", text);
        put_line(line, make_line(line, LOG_LEVEL_ERROR, NULL, copy));
        return;
    }
    snprintf(line, sizeof line - 1, "lanced: %s", text);
    utf8_make_line(line);
    size_t end = strlen(line);
    line[end] = '\n';
    put_line(line, end + 1);
}

int log_open(struct error *error)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&queue.filled, NULL);
    pthread_cond_init(&queue.emptied, &monotonic);
    pthread_condattr_destroy(&monotonic);
    sigset_t all, before; /* signals are for the main thread */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int reason = pthread_create(&queue.thread, NULL, write_lines, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (reason != 0)
        return error_set(error, ERROR_NO_MEMORY, "cannot start the thread that writes the log: %s; raise the limit of "
                         "processes (pids.max, ulimit -u) or of address space (ulimit -v)", strerror(reason));
    pthread_mutex_lock(&queue.lock);
    queue.is_open = true;
    pthread_mutex_unlock(&queue.lock);
    return 0;
}

void log_close(void)
{
    pthread_mutex_lock(&queue.lock);
    bool was_open = queue.is_open;
    queue.is_closing = true;
    pthread_cond_signal(&queue.filled);
    bool is_written = was_open && wait_for(queue.put, CLOSE_MS);
    queue.is_open = false;
    pthread_mutex_unlock(&queue.lock);
    if (is_written)
        pthread_join(queue.thread, NULL);
    else if (was_open)
        pthread_detach(queue.thread); /* it waits for who does not read, and ends with the process */
}
