/* events.h: what a job has told, in order, for clients that ask from where they left off.
 *
 * Events are numbered from 1 on. The first ones tell the job's positions in the queue, each one less than the one
 * before unless another job has come before it: they are not kept, however long the queue is, but made when somebody
 * asks.
 *
 * An `events` belongs to its job; all zero is one without events (but see events_open). The table's lock guards it.
 */
#ifndef LANCE_JOB_EVENTS_H
#define LANCE_JOB_EVENTS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/blob.h"

enum job_event {
    EVENT_QUEUED,
    EVENT_STARTED,
    EVENT_PROGRESS,
    EVENT_PREVIEW,
    EVENT_TEXT,
    EVENT_PAUSED,
    EVENT_DONE,
    EVENT_FAILED,
    EVENT_CANCELLED
};

/* As PROTOCOL.md has it: "queued", "started", ... */
const char *job_event_name(enum job_event event);

enum { JOBS_NEWS_MAX_EVENTS = 256, JOBS_KEPT_PREVIEWS = 4 };

/* A picture of what becomes of a job, u8 [frames, height, width, 3]. */
struct job_preview {
    char name[32]; /* "preview.<sequence>" */
    struct blob *rgb;
    int frames, height, width;
};

/* Events of a job, copied out of the table. */
struct job_news {
    cJSON *events; /* array; owned */
    int preview_count;
    struct job_preview previews[JOBS_KEPT_PREVIEWS];
};
void job_news_clear(struct job_news *news);

struct events {
    uint64_t base; /* the number that the first one comes after: 0, or what a former daemon may have told */
    struct descent *descents; /* of its position in the queue, each from higher than the end of the one before; */
    size_t descent_count;
    uint64_t moves;     /* positions in them, */
    int position;       /* the last of which is the present one; -1: none yet */
    struct event *list; /* all the others */
    size_t count, capacity;
};

void events_open(struct events *events);
void events_close(struct events *events);

/* How many there are so far; the number of the last one. */
uint64_t events_count(const struct events *events);

/* The job is at this position now, 0 being the next one: false when it was there already, or when it has been overtaken
 * too often to be told that once more. */
bool events_move_to(struct events *events, int position);

/* An event with its number; owns `fields`, which come after these two. NULL: out of memory. */
cJSON *event_make(uint64_t sequence, enum job_event event, cJSON *fields);

/* Append an event; owns `fields`, and one reference of the preview's picture where there is one (`preview` not NULL).
 * Only the newest JOBS_KEPT_PREVIEWS pictures are kept. Returns the event, or NULL: out of memory, there is one event
 * less. */
const cJSON *events_add(struct events *events, enum job_event event, cJSON *fields, const struct job_preview *preview);

/* Copy the events after `after`, at most JOBS_NEWS_MAX_EVENTS. json_is_complete(news->events) tells whether there was
 * memory for them. */
void events_copy(const struct events *events, uint64_t after, struct job_news *news);

/* What they take in memory, roughly. */
uint64_t events_bytes(const struct events *events);

#endif
