/* main.c: lanced. Everything is in daemon.c, so that tests can run it with another engine. */
#include "daemon/daemon.h"

int main(int argc, char **argv)
{
    return daemon_run(argc, argv);
}
