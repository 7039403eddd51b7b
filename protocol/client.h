/* client.h: the C client of lanced: connect, ask, follow a job.
 *
 * A client talks to one daemon and is used by one thread at a time. Every request can be
 * sent again without harm, so a connection that is lost and comes back is not noticed.
 * When the daemon stays away, or is another one than before, the error says so: PROTOCOL.md, "When a daemon is gone".
 */
#ifndef LANCE_CLIENT_H
#define LANCE_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/message.h"

struct client;

/* Called once a second while an answer is overdue, with the seconds since it was due. Returning true gives it up
 * (ERROR_IO). */
typedef bool client_silence(void *context, int seconds);

struct client_options {
    const char *endpoint;   /* NULL: LANCED_ENDPOINT or the default; see endpoint.h */
    const char *token;      /* NULL: LANCED_TOKEN from the environment, else what LANCED_TOKEN_FILE holds, if any */
    const char *ca;         /* for tls+tcp: a file with the CA's certificate; NULL: LANCED_CA */
    const char *name;       /* name and version of the program, such as "lancectl 0.1.0"; $LANCED_CLIENT instead */
    int connect_timeout_ms; /* how long to try; 0: the daemon must be there now */
    int silence_ms;         /* how long a daemon that listens may owe an answer; 0:
                             * LANCED_SILENCE_SECONDS, else a minute */
    client_silence *on_silence; /* or NULL */
    void *context;              /* for on_silence */
};

/* Connect and say hello. Errors: ERROR_IO (nobody answers), ERROR_UNSUPPORTED (the daemon speaks another
 * version of the protocol), ERROR_BAD_REQUEST (bad endpoint or token). */
int client_open(struct client **out, const struct client_options *options, struct error *error);
void client_close(struct client *client); /* NULL is allowed */

/* The answer to hello: version, backend, limits, model. Belongs to the client. */
const cJSON *client_hello(const struct client *client);

/* The endpoint in use. */
const char *client_endpoint(const struct client *client);

/* Send one request and wait for its answer. `fields` is a JSON object with the request's fields, or NULL; it and
 * the tensors are borrowed. On success *answer (close it with message_close) is the daemon's answer; when the
 * daemon answered with an error, that error is returned and *answer is NULL. `answer` may be NULL.
 * Errors also: ERROR_IO when the daemon is gone, ERROR_TOO_LARGE before sending what the daemon would not take. */
int client_request(struct client *client, const char *request, const cJSON *fields,
                   const struct tensor_view *tensors, size_t tensor_count, struct message **answer,
                   struct error *error);

/* The daemon's last answer to client_request or client_next that was an error, with what it has beside the text; NULL:
 * the last one was none. Belongs to the client, until its next request. */
const cJSON *client_refusal(const struct client *client);

/* --- Several requests at once (transfer.h) --- */

enum { CLIENT_IN_FLIGHT = 4 };

/* Send a request without waiting, when fewer than CLIENT_IN_FLIGHT are on their way; as client_request otherwise. `tag`
 * comes back with the answer. Nothing else may be asked until all have been answered or abandoned. */
int client_begin(struct client *client, const char *request, const cJSON *fields, const struct tensor_view *tensors,
                 size_t tensor_count, uint64_t tag, struct error *error);

/* Wait for the answer to any of them. *answer is NULL when none came within a tenth of a second. The limit on
 * silence is theirs together: it counts anew with every answer. After an error others may still be on their
 * way, unless it is the line's. */
int client_next(struct client *client, uint64_t *tag, struct message **answer, struct error *error);

int client_in_flight(const struct client *client); /* how many are on their way */
void client_abandon(struct client *client);        /* wait for none of them any more */

/* Shorthands for requests that carry a job id only: "result", "cancel", "release". */
int client_job_request(struct client *client, const char *request, const char *job, struct message **answer,
                       struct error *error);

/* Called by client_follow for every event in order, with the picture of a preview event
 * (u8 [frames, height, width, 3]) or NULL; and with event NULL several times a second while
 * nothing happens, so that a signal's flag can be looked at. Returning true has the job
 * cancelled; the events up to its end still come. */
typedef bool client_event(void *context, const cJSON *event, const struct tensor_view *preview);

/* Follow a submitted job from its first event to its last. Returns 0 when it is done (ask for its "result"),
 * ERROR_CANCELLED, or the code and text it failed with. */
int client_follow(struct client *client, const char *job, client_event *on_event, void *context,
                  struct error *error);

#endif
