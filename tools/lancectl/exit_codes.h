/* exit_codes.h: what lancectl's exit status means (docs/lancectl.md lists the same). */
#ifndef LANCECTL_EXIT_CODES_H
#define LANCECTL_EXIT_CODES_H

enum exit_code {
    EXIT_OK = 0,
    EXIT_FAILED = 1,        /* the job failed, or was cancelled by somebody else; or lanced had an error */
    EXIT_USAGE = 2,         /* the command line is wrong */
    EXIT_NO_DAEMON = 3,     /* no daemon answers, the connection was lost, or a private one could not be started */
    EXIT_REFUSED = 4,       /* the daemon understood and said no: bad parameter, too large, unknown job or
                             * model, busy, another protocol */
    EXIT_NOT_WRITTEN = 5,   /* a file or stdout could not be written; the result is still with the daemon,
                             * unless who reads has ended */
    EXIT_NOT_READ = 6,      /* a source or example file could not be read or is not what it should
                             * be; or there is no receipt */
    EXIT_INTERRUPTED = 128  /* plus the signal: 130 after Ctrl-C */
};

/* The exit code for an error code that the client library or the daemon gave. */
enum exit_code exit_code_of_error(int error_code);

#endif
