/* graph_open.c: see graph_open.h. */
#include "tools/lancectl/graph/graph_open.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tools/lancectl/graph/check_nodes.h"
#include "tools/lancectl/graph/other_packs.h"
#include "tools/lancectl/graph/settings.h"

/* Say which nodes are of no known kind: one line for each kind, with its nodes. */
static void tell_unknown(const struct graph *graph, struct problems *problems)
{
    int told = 0;
    for (int i = 0; i < graph->count; i++) {
        const char *id = json_text(graph->nodes[i].entry, "class_type");
        bool is_told = graph->nodes[i].kind != NULL;
        for (int before = 0; before < i && !is_told; before++)
            is_told = !graph->nodes[before].kind && !strcmp(json_text(graph->nodes[before].entry, "class_type"), id);
        if (is_told)
            continue;
        char nodes[200] = "";
        size_t used = 0;
        int count = 0;
        for (int other = i; other < graph->count; other++) {
            const struct graph_node *node = &graph->nodes[other];
            if (node->kind || strcmp(json_text(node->entry, "class_type"), id) != 0)
                continue;
            if (used < sizeof nodes - 40)
                used += (size_t)snprintf(nodes + used, sizeof nodes - used, "%s%.30s", count ? ", " : "", node->id);
            count++;
        }
        problem(problems, "%.100s (node%s %s%s) is no node that lancectl can run", id, count > 1 ? "s" : "", nodes,
                used < sizeof nodes - 40 ? "" : ", ...");
        told++;
    }
    if (told)
        problem(problems, "lancectl graph runs Lance nodes and those of ComfyUI's core that go with them "
                          "(docs/lancectl.md lists them); others need a ComfyUI: lance-farm prepare "
                          "--runner comfyui");
}

static int list_nodes(struct graph *graph, struct error *error)
{
    graph->count = cJSON_GetArraySize(graph->file.nodes);
    graph->nodes = calloc((size_t)graph->count, sizeof *graph->nodes);
    graph->order = calloc((size_t)graph->count, sizeof *graph->order);
    if (!graph->nodes || !graph->order)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a graph of %d nodes", graph->count);
    cJSON *entry;
    int count = 0;
    cJSON_ArrayForEach(entry, graph->file.nodes) {
        const char *title = json_text(cJSON_GetObjectItemCaseSensitive(entry, "_meta"), "title"),
                   *id = json_text(entry, "class_type");
        graph->nodes[count++] = (struct graph_node){.id = entry->string,
                                                    .title = title && *title ? title : id,
                                                    .kind = node_kind_find(graph->kinds, id),
                                                    .entry = entry};
        const char *wish = json_text(entry, WISHED_MODEL);
        if (wish && !(graph->nodes[count - 1].wished_model = strdup(wish)))
            return error_set(error, ERROR_NO_MEMORY, "no memory for a graph of %d nodes", graph->count);
        cJSON_DeleteItemFromObjectCaseSensitive(entry, WISHED_MODEL);
    }
    return 0;
}

/* One node on the way from an output node back along its links. */
struct step {
    int node, next_input;
};

enum { UNSEEN, ON_THE_WAY, PLACED };

/* Put `start` and all that it needs into the order, each after what it needs. Returns a node that needs itself, or
 * -1. */
static int place_with_needs(struct graph *graph, int start, struct step *way, char *seen)
{
    int depth = 0;
    way[depth++] = (struct step){start, 0};
    seen[start] = ON_THE_WAY;
    while (depth > 0) {
        struct step *step = &way[depth - 1];
        const struct graph_node *node = &graph->nodes[step->node];
        if (step->next_input == node->kind->inputs) {
            seen[step->node] = PLACED;
            graph->order[graph->needed++] = step->node;
            depth--;
            continue;
        }
        const struct graph_input *input = &node->input[step->next_input++];
        if (!input->is_linked || seen[input->node] == PLACED)
            continue;
        if (seen[input->node] == ON_THE_WAY)
            return input->node;
        seen[input->node] = ON_THE_WAY;
        way[depth++] = (struct step){input->node, 0};
    }
    return -1;
}

/* Bring the nodes that output nodes need into an order. A circle is a problem. */
static int order_nodes(struct graph *graph, struct problems *problems, struct error *error)
{
    struct step *way = calloc((size_t)graph->count, sizeof *way);
    char *seen = calloc((size_t)graph->count, 1);
    int code = way && seen ? 0 : error_set(error, ERROR_NO_MEMORY, "no memory for a graph of %d nodes", graph->count);
    int circle = -1;
    for (int i = 0; !code && circle < 0 && i < graph->count; i++)
        if (graph->nodes[i].kind->is_output && seen[i] == UNSEEN)
            circle = place_with_needs(graph, i, way, seen);
    if (circle >= 0)
        problem(problems, "node %s (%s): needs its own result, in a circle of links", graph->nodes[circle].id,
                graph->nodes[circle].title);
    else if (!code && !graph->needed)
        problem(problems, "the graph has no node that saves or shows something, such as SaveImage");
    free(way);
    free(seen);
    return code;
}

/* Other packs' nodes and settings; both change the JSON. */
static int change(struct graph *graph, const struct graph_wish *wish, struct problems *problems, struct error *error)
{
    const char **settings = calloc((size_t)wish->set_count + 1, sizeof *settings);
    if (!settings)
        return error_set(error, ERROR_NO_MEMORY, "no memory for --set");
    for (int i = 0; i < wish->set_count; i++)
        settings[i] = wish->set[i];
    settings_apply(graph->file.nodes, settings, wish->set_count, graph->kinds, false, problems);
    int code = other_packs_convert(graph->file.nodes, problems, error);
    if (!code)
        settings_apply(graph->file.nodes, settings, wish->set_count, graph->kinds, true, problems);
    free(settings);
    return code;
}

static int build(struct graph *graph, const struct graph_wish *wish, struct problems *problems, struct error *error)
{
    int code = node_kinds_open(&graph->kinds, error);
    if (!code)
        code = graph_file_read(&graph->file, wish->path, error);
    if (!code)
        code = change(graph, wish, problems, error);
    if (!code)
        code = list_nodes(graph, error);
    if (!code)
        tell_unknown(graph, problems);
    if (!code && !problems->count)
        code = check_nodes(graph, &wish->folders, problems, error);
    if (!code && !problems->count)
        code = order_nodes(graph, problems, error);
    return code;
}

int graph_open(struct graph **out, const struct graph_wish *wish, struct problems *problems, struct error *error)
{
    struct graph *graph = *out = calloc(1, sizeof *graph);
    int code =
        graph ? build(graph, wish, problems, error) : error_set(error, ERROR_NO_MEMORY, "no memory for the graph");
    if (!code && !problems->count)
        return 0;
    graph_close(graph);
    *out = NULL;
    return code;
}

void graph_close(struct graph *graph)
{
    if (!graph)
        return;
    for (int i = 0; graph->nodes && i < graph->count; i++) {
        for (int input = 0; input < MAX_INPUTS; input++)
            value_release(graph->nodes[i].input[input].value);
        free(graph->nodes[i].wished_model);
    }
    free(graph->nodes);
    free(graph->order);
    graph_file_close(&graph->file);
    node_kinds_close(graph->kinds);
    free(graph);
}
