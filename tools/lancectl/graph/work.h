/* work.h: one run of one node: what came in, the jobs that it has the daemon do, and what comes out. */
#ifndef LANCECTL_GRAPH_WORK_H
#define LANCECTL_GRAPH_WORK_H

#include "protocol/transfer.h"
#include "tools/lancectl/graph/graph.h"
#include "tools/lancectl/graph/report.h"
#include "tools/lancectl/session.h"

/* Values that follow each other over one link. Each is held by the list. */
struct list {
    struct value **items;
    int count;
};

/* Add a value, which the list holds from now on; NULL: it could not be made. ERROR_NO_MEMORY. */
int list_add(struct list *list, struct value *value, struct error *error);
void list_close(struct list *list);

/* What all runs of a graph share. */
struct context {
    const struct graph *graph;
    struct graph_folders folders;
    struct session *session;
    struct report *report;
    const char *prompt_text, *workflow_text; /* of the graph, ASCII, for files; the latter may be NULL */
    bool uses_own_model; /* the command line names a model: those of the graph do not count */
};

enum { ASK_TENSORS = 5 };

/* One job: what is asked, and what came. */
struct ask {
    char id[JOB_ID_MAX_BYTES + 1];
    const char *task;
    cJSON *params;
    const char *model; /* NULL: the loaded one */
    struct tensor_view tensors[ASK_TENSORS];
    void *owned[ASK_TENSORS]; /* their data, where it is not a value's */
    size_t tensor_count;
    enum { ASK_WAITS, ASK_RUNS, ASK_ENDED } state;
    struct job_result *result;
};

struct edit_by_mask;

struct work {
    const struct context *context;
    const struct graph_node *node;
    struct list input[MAX_INPUTS];   /* one value each, or none; whole lists for kinds that take them */
    struct list output[MAX_OUTPUTS];
    struct ask *asks;
    int ask_count;
    double source_seconds;           /* of a video that it works on; 0: none */
    struct edit_by_mask *edits;      /* for each picture; NULL: there is no mask */
    int edit_count;
    bool is_done;
};

void work_close(struct work *work);

/* The value of an input, or NULL. */
struct value *work_value(const struct work *work, const char *name);
double work_number(const struct work *work, const char *name);    /* of an input that is there */
const char *work_text(const struct work *work, const char *name);

/* Give an output a value, which it holds from now on; NULL: it could not be made. ERROR_NO_MEMORY. */
int work_give(struct work *work, int output, struct value *value, struct error *error);

/* One more job of that task, with nothing in it yet; NULL: out of memory. Earlier pointers to jobs are no longer
 * good. */
struct ask *work_ask(struct work *work, const char *task);

/* Add a tensor. `owned` is freed with the job, and may be NULL. */
void ask_add(struct ask *ask, const char *name, enum dtype dtype, int dimensions, const int *shape, const void *data,
             void *owned);

#endif
