/* nng_start.h: nng's threads, started in words.
 *
 * nng 1.5 starts a dozen threads with the first thing it is asked for. Where the system refuses one of them
 * (pids.max, ulimit -u, ulimit -v), it crashes, aborts, or waits for ever for the threads that it does not have. So
 * a program starts nng here, before anything else that needs it.
 */
#ifndef LANCE_NNG_START_H
#define LANCE_NNG_START_H

#include "base/error.h"

enum { NNG_START_EXIT_STATUS = 1 };

/* Start nng, after a trial whether the system gives as many threads and as much memory as it takes. Call it while
 * the program has one thread, with the signals blocked that nng's threads are not to have. `program` stands before
 * what is said on standard error where the trial went well and nng falls all the same (another process took the last
 * threads meanwhile): the process then ends with NNG_START_EXIT_STATUS. Errors: ERROR_NO_MEMORY, which says what to
 * raise. */
int nng_start(const char *program, struct error *error);

#endif
