/* server.h: lanced's socket, a door of the service (service.h): nng's contexts, parking, sending. */
#ifndef LANCE_SERVER_H
#define LANCE_SERVER_H

#include "daemon/service/service.h"

struct options;
struct server;

/* Listen at the options' endpoint, and bring the service what comes, from now on. Everything given must outlive the
 * server. Errors: ERROR_IO, ERROR_BUSY (address in use), ERROR_NO_MEMORY. */
int server_open(struct server **out, const struct options *options, struct service *service, struct error *error);

/* To be called about once a second, by the thread that opened the server: see listener.h. */
void server_check(struct server *server);

/* Let answers under way leave, then stop. NULL is allowed. A fault of nng 1.5 (see server_check) can keep this from
 * returning. */
void server_close(struct server *server);

#endif
