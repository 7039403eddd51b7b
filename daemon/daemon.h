/* daemon.h: the life of one lanced process, from its command line to its exit status. */
#ifndef LANCE_DAEMON_H
#define LANCE_DAEMON_H

/* Exit statuses: 0 ended as asked; 1 a failure, said on standard error; 2 a wrong command line. */
int daemon_run(int argc, char **argv);

#endif
