/* interrupt.h: Ctrl-C (SIGINT), SIGTERM, SIGHUP (but under nohup) and SIGXCPU (the limit of ulimit -t) as a flag.
 *
 * The first signal only sets the flag, so that the job can be cancelled on the daemon. A
 * second one ends lancectl at once, and the private daemon with it, if there is one.
 */
#ifndef LANCECTL_INTERRUPT_H
#define LANCECTL_INTERRUPT_H

#include <sys/types.h>

void interrupt_install(void);

/* The signal that came, or 0. */
int interrupt_signal(void);

/* The process that a second signal takes along; 0: none. */
void interrupt_set_private_daemon(pid_t pid);

#endif
