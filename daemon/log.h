/* log.h: the daemon's log: one line per event on standard error, for an operator to read.
 *
 *   2026-11-21T11:24:39.123Z info    job 4f2a: done in 3.1 s
 *
 * or, for programs: {"time":"2026-11-21T11:24:39.123Z","level":"info","job":"4f2a","message":"done in 3.1 s"}
 *
 * Callable from any thread; lines never mix. Text that came from a client cannot forge a line: control characters
 * are written as '?'. Nobody waits for who reads the log: between log_open and log_close a thread of its own writes
 * it, and lines for which there is no room any more are left out and counted.
 */
#ifndef LANCE_LOG_H
#define LANCE_LOG_H

#include "base/error.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Start the thread that writes. Without it lines are written at once, however long that takes. Once, and before other
 * threads start. Errors: ERROR_NO_MEMORY. */
int log_open(struct error *error);

/* Write what is left, unless nobody takes it for a second, and end the thread. Nothing may be logged after that. */
void log_close(void);

/* Lines above this level are dropped. Set once, before other threads start. */
void log_set_level(enum log_level level);

/* Lines are JSON objects. Likewise. */
void log_as_json(void);

/* The level of a name ("error", "warning", "info", "debug"), or -1. */
int log_level_of(const char *name);

/* `job` names the job the line is about; NULL for none. */
void log_line(enum log_level level, const char *job, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* What a program says to who started it, without time and level: "lanced: " and the text. */
void log_say(const char *text);

#define log_error(job, ...) log_line(LOG_LEVEL_ERROR, job, __VA_ARGS__)
#define log_warning(job, ...) log_line(LOG_LEVEL_WARNING, job, __VA_ARGS__)
#define log_info(job, ...) log_line(LOG_LEVEL_INFO, job, __VA_ARGS__)
#define log_debug(job, ...) log_line(LOG_LEVEL_DEBUG, job, __VA_ARGS__)

#endif
