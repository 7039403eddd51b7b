/* events.c: see events.h. */
#include "daemon/jobs/events.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

enum { MOST_DESCENTS = 1000 };    /* that are told: a job that jobs of other classes come before, again and again */
enum { EVENT_COST_BYTES = 1024 }; /* what an event's JSON takes, roughly; for the limit on kept results */

struct event {
    cJSON *fields; /* "sequence" and "event" included */
    struct blob *preview;
    int frames, height, width;
};

/* Positions, each one less than the one before. */
struct descent {
    int from, to;
};

const char *job_event_name(enum job_event event)
{
    static const char *const names[] = {"queued", "started", "progress", "preview",  "text",
                                        "paused", "done",    "failed",   "cancelled"};
    return names[event];
}

void job_news_clear(struct job_news *news)
{
    cJSON_Delete(news->events);
    for (int i = 0; i < news->preview_count; i++)
        blob_close(news->previews[i].rgb);
    memset(news, 0, sizeof *news);
}

void events_open(struct events *events)
{
    *events = (struct events){.position = -1};
}

void events_close(struct events *events)
{
    for (size_t i = 0; i < events->count; i++) {
        cJSON_Delete(events->list[i].fields);
        blob_close(events->list[i].preview);
    }
    free(events->list);
    free(events->descents);
    events_open(events);
}

uint64_t events_count(const struct events *events)
{
    return events->base + events->moves + events->count;
}

bool events_move_to(struct events *events, int position)
{
    if (position == events->position)
        return false;
    if (events->position < 0 || position > events->position) {
        const size_t count = events->descent_count + 1;
        struct descent *more =
            count <= MOST_DESCENTS ? realloc(events->descents, count * sizeof *events->descents) : NULL;
        if (!more)
            return false;
        events->descents = more;
        events->descents[events->descent_count++] = (struct descent){position, position};
        events->moves++;
    } else {
        struct descent *last = &events->descents[events->descent_count - 1];
        events->moves += (uint64_t)(last->to - position);
        last->to = position;
    }
    events->position = position;
    return true;
}

cJSON *event_make(uint64_t sequence, enum job_event event, cJSON *fields)
{
    cJSON *made = json_object();
    /* Sequence and name first, for whoever reads a captured message. */
    json_add_number(made, "sequence", (double)sequence);
    json_add_text(made, "event", job_event_name(event));
    bool is_made = made && json_is_complete(fields);
    for (cJSON *field; is_made && (field = fields->child);)
        json_add(made, field->string, cJSON_DetachItemViaPointer(fields, field));
    cJSON_Delete(fields);
    if (is_made && json_is_complete(made))
        return made;
    cJSON_Delete(made);
    return NULL;
}

/* The one of that place among the events, from 0 on. */
static cJSON *make_queued_event(const struct events *events, uint64_t place)
{
    cJSON *fields = json_object();
    const struct descent *descent = events->descents;
    uint64_t at = place;
    for (; at > (uint64_t)(descent->from - descent->to); descent++)
        at -= (uint64_t)(descent->from - descent->to) + 1;
    json_add_number(fields, "position", (double)descent->from - (double)at);
    return event_make(events->base + place + 1, EVENT_QUEUED, fields);
}

static bool reserve(struct events *events)
{
    if (events->count < events->capacity)
        return true;
    size_t capacity = events->capacity != 0 ? 2 * events->capacity : 16;
    struct event *list = realloc(events->list, capacity * sizeof *list);
    if (!list)
        return false;
    events->list = list;
    events->capacity = capacity;
    return true;
}

/* Drop the picture of the oldest event that still has one, if there are enough. */
static void make_room_for_a_preview(struct events *events)
{
    int kept = 0;
    for (size_t i = events->count; i-- > 0;) {
        if (!events->list[i].preview || ++kept < JOBS_KEPT_PREVIEWS)
            continue;
        blob_close(events->list[i].preview);
        events->list[i].preview = NULL;
    }
}

const cJSON *events_add(struct events *events, enum job_event event, cJSON *fields, const struct job_preview *preview)
{
    cJSON *made = event_make(events_count(events) + 1, event, fields);
    if (!made || !reserve(events)) {
        cJSON_Delete(made);
        blob_close(preview ? preview->rgb : NULL);
        return NULL;
    }
    struct event added = {.fields = made};
    if (preview) {
        make_room_for_a_preview(events);
        added = (struct event){made, preview->rgb, preview->frames, preview->height, preview->width};
    }
    events->list[events->count++] = added;
    return made;
}

void events_copy(const struct events *events, uint64_t after, struct job_news *news)
{
    const uint64_t queued = events->moves, count = queued + events->count;
    const uint64_t first = after > events->base ? after - events->base : 0;
    news->events = json_array();
    for (uint64_t i = first; i < count && i - first < JOBS_NEWS_MAX_EVENTS; i++) {
        if (i < queued) {
            json_append(news->events, make_queued_event(events, i));
            continue;
        }
        const struct event *event = &events->list[i - queued];
        json_append(news->events, cJSON_Duplicate(event->fields, true));
        if (!event->preview)
            continue;
        struct job_preview *preview = &news->previews[news->preview_count++];
        snprintf(preview->name, sizeof preview->name, "preview.%llu", (unsigned long long)(events->base + i + 1));
        preview->rgb = blob_share(event->preview);
        preview->frames = event->frames;
        preview->height = event->height;
        preview->width = event->width;
    }
}

uint64_t events_bytes(const struct events *events)
{
    uint64_t bytes = events->count * EVENT_COST_BYTES;
    for (size_t i = 0; i < events->count; i++)
        if (events->list[i].preview)
            bytes += events->list[i].preview->bytes;
    return bytes;
}
