/* schedule.c: see schedule.h. */
#include "daemon/jobs/schedule.h"

#include <stdio.h>
#include <string.h>

const char *const job_class_names[] = {"interactive", "normal", "batch", NULL};

/* ---- Classes ---- */

static enum job_class first_of(const bool wants[JOB_CLASSES])
{
    enum job_class first = JOB_INTERACTIVE;
    while (first < JOB_CLASSES && !wants[first])
        first++;
    return first;
}

enum job_class schedule_class(const struct schedule *schedule, const bool wants[JOB_CLASSES])
{
    const enum job_class first = first_of(wants);
    for (enum job_class class = JOB_CLASSES - 1; class > first && first < JOB_CLASSES; class--) {
        const double price = SCHEDULE_PATIENCE * schedule->step[class];
        if (wants[class] && schedule->waited[class] > 0 && schedule->waited[class] >= price)
            return class;
    }
    return first;
}

void schedule_note(struct schedule *schedule, enum job_class class, double seconds, const bool wants[JOB_CLASSES])
{
    const enum job_class first = first_of(wants) < class ? first_of(wants) : class;
    schedule->step[class] = seconds;
    for (int other = 0; other < JOB_CLASSES; other++)
        if (schedule->step[other] <= 0)
            schedule->step[other] = seconds;
    for (enum job_class other = JOB_INTERACTIVE; other < JOB_CLASSES; other++) { /* those before it want nothing */
        if (other == first || (other != class && !wants[other]))
            schedule->waited[other] = 0;
        else
            schedule->waited[other] += other == class ? -SCHEDULE_PATIENCE * seconds : seconds;
    }
}

/* ---- Clients ---- */

/* Whether nothing is lost when a client is forgotten: it would join the round that is served in any case. */
static bool is_forgettable(const struct schedule *schedule, const struct schedule_client *client)
{
    bool is_behind = true;
    for (int class = 0; class < JOB_CLASSES; class++)
        is_behind = is_behind && (client->served[class] == 0 || client->served[class] < schedule->round[class]);
    return !client->is_known || is_behind;
}

/* The client of a job, as of this pass. */
static struct schedule_client *client_of(struct schedule *schedule, const struct job *job)
{
    struct schedule_client *free_place = NULL, *last = &schedule->clients[SCHEDULE_MOST_CLIENTS - 1];
    for (struct schedule_client *client = schedule->clients; client <= last; client++) {
        if (client->is_known && strcmp(client->name, job->client) == 0 && strcmp(client->owner, job->owner) == 0)
            return client;
        if (client->pass != schedule->pass && is_forgettable(schedule, client) && !free_place)
            free_place = client;
    }
    if (!free_place)
        return last;
    *free_place = (struct schedule_client){.is_known = true};
    snprintf(free_place->name, sizeof free_place->name, "%s", job->client);
    snprintf(free_place->owner, sizeof free_place->owner, "%s", job->owner);
    return free_place;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void schedule_rounds(struct schedule *schedule, struct job *first)
{
    schedule->pass++;
    for (struct job *job = first; job; job = job->next) {
        if (job->state != JOB_QUEUED || job->is_ending)
            continue;
        struct schedule_client *client = client_of(schedule, job);
        const enum job_class class = job->priority;
        if (client->pass != schedule->pass)
            memset(client->next, 0, sizeof client->next);
        client->pass = schedule->pass;
        job->round = larger(larger(client->next[class], client->served[class] + 1), schedule->round[class]);
        client->next[class] = job->round + 1;
    }
}

bool schedule_is_before(const struct job *job, const struct job *other)
{
    if (job->priority != other->priority)
        return job->priority < other->priority;
    return job->round != other->round ? job->round < other->round : job->number < other->number;
}

void schedule_begin(struct schedule *schedule, const struct job *job)
{
    client_of(schedule, job)->served[job->priority] = job->round;
    schedule->round[job->priority] = larger(schedule->round[job->priority], job->round);
}
