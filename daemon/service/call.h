/* call.h: one request on its way, from its message to its answer: see service.h.
 *
 * A door owns it and embeds it in what it has for each request. It is handled on the door's thread. Whoever handles it
 * owns it, until it is parked: then another thread may wake it, and already be answering it, before service_handle or
 * service_continue has returned.
 */
#ifndef LANCE_CALL_H
#define LANCE_CALL_H

#include <stdint.h>

#include "daemon/blob.h"
#include "daemon/jobs/events.h"
#include "daemon/tokens.h"
#include "daemon/waiter.h"
#include "protocol/message.h"

enum { CALLS_MOST_PARKED = 960 }; /* at once; a call beyond that is answered early */

struct service;
struct request_kind;

/* One request, from its message to its answer. Zeroed by the door before its first use, then call_open. */
struct call {
    /* The door's. park(call) has the call continued at `until` (of clock.h), or at once when nobody waits for the
     * answer any more (waiter.client_gone), or when wake(call) is called, whichever comes first. Both are called under
     * the lock of whatever the call waits for, and must not call back; after park the call belongs to whoever continues
     * it. */
    void (*park)(struct call *call);
    void (*wake)(struct call *call);
    struct waiter waiter; /* .client, the connection, is set by the door */
    double until;
    bool is_of_owner; /* it came over an ipc socket from the user whose lanced this is; set by the door */

    struct blob
        *answer; /* the encoded answer, once the call is finished. NULL: nobody wants it, or there was no memory */

    /* The service's. */
    struct service *service;
    const struct request_kind *kind;
    struct identity who; /* asks: rights.h */
    struct message *message; /* the request; job_request_open may take it */
    cJSON *fields;           /* the answer's envelope, being made, */
    cJSON *missing_blobs;    /* a field of an answer that says so, beside the error; */
    struct job_news news;    /* events, */
    struct tensor_view piece; /* and a tensor for it: .data is NULL without one; */
    struct blob *piece_of;   /* it lies in this */
    char job[JOB_ID_MAX_BYTES + 1];
    uint64_t after;
    int model;
    uint64_t ticket; /* of a load or unload */
};

#endif
