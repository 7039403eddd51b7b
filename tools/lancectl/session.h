/* session.h: the daemon that one run of lancectl talks to: the one that answers, or a private one. */
#ifndef LANCECTL_SESSION_H
#define LANCECTL_SESSION_H

#include "protocol/client.h"
#include "tools/lancectl/arguments.h"
#include "tools/lancectl/exit_codes.h"

struct private_daemon;

struct session {
    struct client *client;
    struct private_daemon *daemon; /* NULL: the daemon is not ours */
    bool quiet;
};

/* Connect to the daemon at the endpoint. When none answers and --model was given, start a private one; when one
 * answers, have it load the model named as the last part of --model. */
int session_open(struct session *session, const struct arguments *arguments, struct error *error);

/* Start a private daemon with --model, whoever answers at the endpoint. */
int session_open_private(struct session *session, const struct arguments *arguments, struct error *error);

/* session_open with signals caught from now on; prints its own errors. EXIT_OK: there is a session. */
enum exit_code session_start(struct session *session, const struct arguments *arguments);

/* End a private daemon and disconnect. */
void session_close(struct session *session);

/* Disconnect, but leave a private daemon where it is, because it holds a result. */
void session_leave(struct session *session);

/* One request. `fields` is consumed, and may be NULL only for want of memory. See client_request. */
int session_request(struct session *session, const char *request, cJSON *fields, struct message **answer,
                    struct error *error);

#endif
