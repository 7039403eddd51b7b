/* log.h: the daemon's log: one line per event on standard error, for an operator to read.
 *
 *   2026-11-21T11:24:39.123Z info    job 4f2a: done in 3.1 s
 *
 * Callable from any thread; lines never mix. Text that came from a client cannot forge a
 * line: control characters are written as '?'.
 */
#ifndef LANCE_LOG_H
#define LANCE_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Lines above this level are dropped. Set once, before other threads start. */
void log_set_level(enum log_level level);

/* The level of a name ("error", "warning", "info", "debug"), or -1. */
int log_level_of(const char *name);

/* `job` names the job the line is about; NULL for none. */
void log_line(enum log_level level, const char *job, const char *format, ...) __attribute__((format(printf, 3, 4)));

#define log_error(job, ...) log_line(LOG_LEVEL_ERROR, job, __VA_ARGS__)
#define log_warning(job, ...) log_line(LOG_LEVEL_WARNING, job, __VA_ARGS__)
#define log_info(job, ...) log_line(LOG_LEVEL_INFO, job, __VA_ARGS__)
#define log_debug(job, ...) log_line(LOG_LEVEL_DEBUG, job, __VA_ARGS__)

#endif
