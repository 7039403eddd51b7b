/* interrupt.c: see interrupt.h. */
#include "tools/lancectl/interrupt.h"

#include <signal.h>
#include <stddef.h>
#include <unistd.h>

#include "tools/lancectl/exit_codes.h"

static volatile sig_atomic_t came;
static volatile sig_atomic_t private_daemon;

static void on_signal(int number)
{
    if (came) {
        if (private_daemon > 0)
            kill((pid_t)private_daemon, SIGTERM);
        _exit(EXIT_INTERRUPTED + number);
    }
    came = number;
}

void interrupt_install(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, hangup;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGXCPU, &action, NULL);
    sigaction(SIGHUP, NULL, &hangup);
    if (hangup.sa_handler != SIG_IGN) /* as nohup has it */
        sigaction(SIGHUP, &action, NULL);
}

int interrupt_signal(void)
{
    return came;
}

void interrupt_set_private_daemon(pid_t pid)
{
    private_daemon = pid;
}
