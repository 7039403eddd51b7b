/* run.c: see run.h. */
#include "tools/lancectl/graph/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "tools/lancectl/complain.h"
#include "tools/lancectl/graph/core_node.h"
#include "tools/lancectl/graph/lance_node.h"
#include "tools/lancectl/graph/node_run.h"
#include "tools/lancectl/interrupt.h"
#include "tools/lancectl/progress.h"
#include "tools/lancectl/receipt.h"
#include "tools/lancectl/say.h"
#include "tools/lancectl/session.h"

enum { MOST_IN_FLIGHT = 8 };

struct run {
    const struct graph *graph;
    const struct arguments *arguments;
    struct context context;
    struct report report;
    struct session session;
    char *prompt_text, *workflow_text;
    char *endpoint;         /* that nodes name; NULL: none does */
    struct node_run *nodes; /* as in the graph */
    int done;
    int most_in_flight, in_flight;
    bool is_open;           /* the session is */
};

/* A job that was submitted: the place of its node, run and job. */
struct flight {
    int node, work, ask;
};

static struct ask *ask_of(const struct run *run, const struct flight *flight)
{
    return &run->nodes[flight->node].works[flight->work].asks[flight->ask];
}

/* Say what went wrong in a node; the exit code. Of what needs no daemon, errors are about files and values. */
static enum exit_code fail(const struct run *run, int node, int code, struct error *error, bool is_of_daemon)
{
    const struct graph_node *of = &run->graph->nodes[node];
    error_prefix(error, "node %s (%s)", of->id, of->title);
    const enum exit_code exit_code = complain(code, error);
    if (is_of_daemon)
        return exit_code;
    return code == ERROR_BAD_FILE || code == ERROR_TOO_LARGE ? EXIT_NOT_READ
           : code == ERROR_IO || code == ERROR_UNSUPPORTED   ? EXIT_NOT_WRITTEN
           : code == ERROR_BAD_REQUEST                       ? EXIT_USAGE
                                                             : exit_code;
}

/* ---- What a kind does ---- */

static int name_model(struct run *run, struct work *work, struct error *error)
{
    const char *endpoint = work_text(work, "endpoint");
    if (*endpoint && run->endpoint && strcmp(endpoint, run->endpoint) != 0 && !run->arguments->endpoint)
        return error_set(error, ERROR_BAD_REQUEST,
                         "the graph asks daemons at %s and at %s; lancectl asks one: --endpoint says which",
                         run->endpoint, endpoint);
    if (*endpoint && !run->endpoint && !(run->endpoint = strdup(endpoint)))
        return error_set(error, ERROR_NO_MEMORY, "no memory");
    struct value *model = value_new(VALUE_MODEL);
    if (model && !(model->text = strdup(work_text(work, "model")))) {
        value_release(model);
        model = NULL;
    }
    work->is_done = true;
    return work_give(work, 0, model, error);
}

static int unload(struct run *run, struct work *work, struct error *error)
{
    struct value *passed = work_value(work, "passed_through");
    int code = session_request(&run->session, "unload", json_object(), NULL, error);
    work->is_done = !code;
    return code ? code : work_give(work, 0, passed ? value_hold(passed) : value_new(VALUE_NOTHING), error);
}

static bool needs_daemon(const struct node_kind *kind)
{
    return kind->does && (!strcmp(kind->does, "job") || !strcmp(kind->does, "unload"));
}

static int begin(struct run *run, struct work *work, struct error *error)
{
    const char *does = work->node->kind->does;
    if (does && !strcmp(does, "model"))
        return name_model(run, work, error);
    if (does && !strcmp(does, "unload"))
        return unload(run, work, error);
    return does && !strcmp(does, "job") ? lance_node_begin(work, error) : core_node_run(work, error);
}

/* ---- Nodes ---- */

static bool is_ready(const struct run *run, const struct graph_node *node)
{
    for (int i = 0; i < node->kind->inputs; i++)
        if (node->input[i].is_linked && run->nodes[node->input[i].node].state != NODE_DONE)
            return false;
    return true;
}

/* The node has taken what it needs: outputs that nobody else waits for can go. */
static void let_go_of_sources(struct run *run, const struct graph_node *node)
{
    for (int i = 0; i < node->kind->inputs; i++) {
        struct node_run *source = node->input[i].is_linked ? &run->nodes[node->input[i].node] : NULL;
        if (source && --source->users == 0)
            node_run_close(source);
    }
}

/* End the node if all its runs have ended. */
static int finish_if_done(struct run *run, int index, struct error *error)
{
    struct node_run *node = &run->nodes[index];
    for (int i = 0; i < node->work_count; i++)
        if (!node->works[i].is_done)
            return 0;
    run->done++;
    return node_run_finish(node, error);
}

static enum exit_code start(struct run *run, int index)
{
    struct error error;
    const struct graph_node *node = &run->graph->nodes[index];
    struct node_run *state = &run->nodes[index];
    int code = node_run_open(state, &run->context, node, run->nodes, &error);
    let_go_of_sources(run, node);
    for (int i = 0; !code && i < state->work_count; i++)
        code = begin(run, &state->works[i], &error);
    if (!code)
        code = finish_if_done(run, index, &error);
    return code ? fail(run, index, code, &error, node->kind->does && !strcmp(node->kind->does, "unload")) : EXIT_OK;
}

/* Start every node that is ready, and of these only those that need no daemon until there is one. Since the order
 * has sources first, once is enough. */
static enum exit_code start_ready(struct run *run)
{
    enum exit_code exit_code = EXIT_OK;
    for (int i = 0; !exit_code && i < run->graph->needed; i++) {
        const int index = run->graph->order[i];
        const struct graph_node *node = &run->graph->nodes[index];
        if (run->nodes[index].state == NODE_WAITS && (run->is_open || !needs_daemon(node->kind)) && is_ready(run, node))
            exit_code =
                interrupt_signal() ? (enum exit_code)(EXIT_INTERRUPTED + interrupt_signal()) : start(run, index);
    }
    return exit_code;
}

/* ---- Jobs ---- */

/* The first job in that state, in the order of nodes. Returns whether there is one. */
static bool find_job(const struct run *run, int state, struct flight *found)
{
    for (int i = 0; i < run->graph->needed; i++) {
        const int index = run->graph->order[i];
        const struct node_run *node = &run->nodes[index];
        for (int work = 0; node->state == NODE_RUNS && work < node->work_count; work++)
            for (int ask = 0; ask < node->works[work].ask_count; ask++)
                if ((int)node->works[work].asks[ask].state == state) {
                    *found = (struct flight){index, work, ask};
                    return true;
                }
    }
    return false;
}

/* Payloads on their way stop when Ctrl-C is pressed. */
static bool on_moved(void *context, uint64_t moved_bytes, uint64_t total_bytes)
{
    (void)context;
    (void)moved_bytes;
    (void)total_bytes;
    return interrupt_signal() != 0;
}

static const struct transfer_watch interruptible = {.on_progress = on_moved};

static int submit(struct run *run, struct ask *ask, struct error *error)
{
    cJSON *fields = json_object();
    json_add_text(fields, "job", ask->id);
    json_add_text(fields, "task", ask->task);
    json_add(fields, "params", cJSON_Duplicate(ask->params, true));
    if (ask->model)
        json_add_text(fields, "model", ask->model);
    int code =
        json_is_complete(fields) && json_is_complete(ask->params)
            ? transfer_submit(run->session.client, fields, ask->tensors, ask->tensor_count, &interruptible, error)
            : error_set(error, ERROR_NO_MEMORY, "submit: no memory");
    cJSON_Delete(fields);
    return code;
}

/* Submit what waits, as many as the daemon takes. */
static enum exit_code submit_waiting(struct run *run)
{
    struct flight flight;
    struct error error;
    while (run->in_flight < run->most_in_flight && find_job(run, ASK_WAITS, &flight)) {
        struct ask *ask = ask_of(run, &flight);
        int code = submit(run, ask, &error);
        if (code == ERROR_BUSY && run->in_flight > 0)
            return EXIT_OK; /* once one of ours has ended */
        if (code == ERROR_BUSY && run->arguments->waits && !interrupt_signal()) {
            sleep(1);
            continue;
        }
        if (code)
            return fail(run, flight.node, code, &error, true);
        ask->state = ASK_RUNS;
        run->in_flight++;
    }
    return EXIT_OK;
}

static bool on_event(void *context, const cJSON *event, const struct tensor_view *preview)
{
    (void)preview;
    if (event)
        progress_show(context, event);
    return interrupt_signal() != 0;
}

/* Follow a job to its end and fetch its result. */
static int follow(struct run *run, const struct flight *flight, struct error *error)
{
    struct ask *ask = ask_of(run, flight);
    struct progress progress;
    progress_start(&progress, stderr, run->arguments->quiet);
    const struct graph_node *node = &run->graph->nodes[flight->node];
    if (!run->arguments->quiet)
        say(stderr, "%s (node %s): %s\n", node->title, node->id, ask->task);
    int code = client_follow(run->session.client, ask->id, on_event, &progress, error);
    progress_end(&progress);
    if (!code)
        code = job_result_fetch(&ask->result, run->session.client, ask->id, &interruptible, error);
    if (code)
        return code;
    ask->state = ASK_ENDED;
    run->in_flight--;
    struct error ignored; /* the daemon would forget the job by itself later */
    client_job_request(run->session.client, "release", ask->id, NULL, &ignored);
    return 0;
}

/* Go on with a run of a node all of whose jobs have ended. */
static int go_on(struct run *run, const struct flight *flight, struct error *error)
{
    struct work *work = &run->nodes[flight->node].works[flight->work];
    for (int i = 0; i < work->ask_count; i++)
        if (work->asks[i].state != ASK_ENDED)
            return 0;
    int code = lance_node_continue(work, error);
    return code ? code : finish_if_done(run, flight->node, error);
}

/* Cancel what the daemon still has. */
static void cancel_all(struct run *run)
{
    struct flight flight;
    struct error ignored;
    while (find_job(run, ASK_RUNS, &flight)) {
        struct ask *ask = ask_of(run, &flight);
        client_job_request(run->session.client, "cancel", ask->id, NULL, &ignored);
        client_job_request(run->session.client, "release", ask->id, NULL, &ignored);
        ask->state = ASK_ENDED;
    }
}

static enum exit_code follow_one(struct run *run)
{
    struct flight flight;
    struct error error;
    if (!find_job(run, ASK_RUNS, &flight)) {
        error_set(&error, ERROR_INTERNAL, "nothing of the graph can go on");
        return complain(ERROR_INTERNAL, &error);
    }
    int code = follow(run, &flight, &error);
    if (!code)
        code = go_on(run, &flight, &error);
    if (code && interrupt_signal()) {
        fprintf(stderr, "lancectl: cancelled\n");
        return (enum exit_code)(EXIT_INTERRUPTED + interrupt_signal());
    }
    return code ? fail(run, flight.node, code, &error, true) : EXIT_OK;
}

/* ---- The daemon ---- */

static bool is_same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if (*a != *b && !((*a == '-' || *a == '_') && (*b == '-' || *b == '_')))
            return false;
    return *a == *b;
}

/* Models that other packs' nodes wish for, where the daemon has one of that name. */
static int grant_wishes(struct run *run, struct error *error)
{
    struct message *answer = NULL;
    for (int i = 0; i < run->graph->count; i++) {
        const char *wish = run->graph->nodes[i].wished_model;
        const struct list *models = &run->nodes[i].output[0];
        if (!wish || !models->count)
            continue;
        int code = answer ? 0 : session_request(&run->session, "models", json_object(), &answer, error);
        if (code)
            return code;
        const cJSON *model;
        cJSON_ArrayForEach(model, cJSON_GetObjectItemCaseSensitive(message_envelope(answer), "models")) {
            const char *name = json_text(model, "name");
            char *copy = name && is_same_name(name, wish) ? strdup(name) : NULL;
            if (copy) {
                free(models->items[0]->text);
                models->items[0]->text = copy;
                break;
            }
        }
    }
    message_close(answer);
    return 0;
}

/* So that no result is forgotten before it was fetched. */
static int most_in_flight(const struct session *session)
{
    const cJSON *limits = cJSON_GetObjectItemCaseSensitive(client_hello(session->client), "limits");
    int most = MOST_IN_FLIGHT;
    for (int i = 0; i < 2; i++) {
        const cJSON *limit = cJSON_GetObjectItemCaseSensitive(limits, i ? "results" : "queue");
        if (cJSON_IsNumber(limit) && limit->valueint < most)
            most = limit->valueint > 1 ? limit->valueint : 1;
    }
    return most;
}

static enum exit_code connect_daemon(struct run *run)
{
    struct arguments arguments = *run->arguments;
    if (!arguments.endpoint)
        arguments.endpoint = run->endpoint;
    enum exit_code exit_code = session_start(&run->session, &arguments);
    if (exit_code)
        return exit_code;
    run->is_open = true;
    run->most_in_flight = most_in_flight(&run->session);
    struct error error;
    int code = grant_wishes(run, &error);
    return code ? complain(code, &error) : EXIT_OK;
}

/* ---- All of it ---- */

static char *ascii_of(const cJSON *json)
{
    char *text = json ? json_print(json) : NULL, *ascii = text ? receipt_escape(text) : NULL;
    cJSON_free(text);
    return ascii;
}

static int open_run(struct run *run, const struct graph_folders *folders, struct error *error)
{
    const struct graph *graph = run->graph;
    run->nodes = calloc((size_t)graph->count, sizeof *run->nodes);
    run->prompt_text = ascii_of(graph->file.nodes);
    run->workflow_text = ascii_of(graph->file.workflow);
    if (!run->nodes || !run->prompt_text || (graph->file.workflow && !run->workflow_text))
        return error_set(error, ERROR_NO_MEMORY, "no memory for a graph of %d nodes", graph->count);
    for (int i = 0; i < graph->needed; i++) {
        const struct graph_node *node = &graph->nodes[graph->order[i]];
        for (int input = 0; input < node->kind->inputs; input++)
            if (node->input[input].is_linked)
                run->nodes[node->input[input].node].users++;
    }
    int code = report_open(&run->report, run->arguments->json, error);
    run->context = (struct context){.graph = graph, .folders = *folders, .session = &run->session,
        .report = &run->report,
                                    .prompt_text = run->prompt_text, .workflow_text = run->workflow_text,
                                    .uses_own_model = run->arguments->model_dir != NULL};
    return code;
}

static void close_run(struct run *run)
{
    for (int i = 0; run->nodes && i < run->graph->count; i++)
        node_run_close(&run->nodes[i]);
    free(run->nodes);
    free(run->prompt_text);
    free(run->workflow_text);
    free(run->endpoint);
    report_close(&run->report);
    if (run->is_open)
        session_close(&run->session);
}

enum exit_code graph_run(const struct graph *graph, const struct graph_folders *folders,
                         const struct arguments *arguments)
{
    struct run run = {.graph = graph, .arguments = arguments};
    struct error error;
    int code = open_run(&run, folders, &error);
    enum exit_code exit_code = code ? complain(code, &error) : start_ready(&run);
    if (!exit_code && run.done < graph->needed)
        exit_code = connect_daemon(&run);
    while (!exit_code && run.done < graph->needed) {
        exit_code = start_ready(&run);
        if (!exit_code)
            exit_code = submit_waiting(&run);
        if (!exit_code && run.done < graph->needed)
            exit_code = follow_one(&run);
    }
    if (run.is_open)
        cancel_all(&run);
    if (!exit_code)
        report_end(&run.report);
    close_run(&run);
    return exit_code;
}
