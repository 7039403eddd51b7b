/* check_nodes.c: see check_nodes.h. */
#include "tools/lancectl/graph/check_nodes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "protocol/latent_shape.h"
#include "tools/lancectl/graph/input_file.h"
#include "tools/lancectl/graph/literal.h"
#include "tools/lancectl/graph/save_name.h"

/* One place among the nodes' ids in order. */
struct place {
    const char *id;
    int node;
};

static int compare_places(const void *a, const void *b)
{
    return strcmp(((const struct place *)a)->id, ((const struct place *)b)->id);
}

/* What is being checked, for messages. */
struct checking {
    struct graph *graph;
    const struct graph_folders *folders;
    struct problems *problems;
    const struct place *places;
};

static bool is_link(const cJSON *item)
{
    return cJSON_IsArray(item) && cJSON_GetArraySize(item) == 2 && cJSON_IsNumber(cJSON_GetArrayItem(item, 1));
}

static void read_link(struct checking *checking, struct graph_node *node, int index, const cJSON *item)
{
    const struct node_input *input = &node->kind->input[index];
    const cJSON *source = cJSON_GetArrayItem(item, 0);
    const double output = cJSON_GetArrayItem(item, 1)->valuedouble;
    if (!cJSON_IsString(source)) {
        char *text = json_print(source);
        problem(checking->problems,
                "node %s (%s): %s is linked to node %.60s, which is no text, as ids of nodes are: \"%.60s\"", node->id,
                node->title, input->name, text ? text : "?", cJSON_IsNumber(source) && text ? text : "1");
        cJSON_free(text);
        return;
    }
    const struct place key = {.id = source->valuestring};
    const struct place *found =
        bsearch(&key, checking->places, (size_t)checking->graph->count, sizeof key, compare_places);
    if (!found) {
        problem(checking->problems, "node %s (%s): %s is linked to node \"%.60s\", which is not there", node->id,
                node->title, input->name, key.id);
        return;
    }
    const struct graph_node *from = &checking->graph->nodes[found->node];
    if (!(output >= 0 && output < from->kind->outputs && output == floor(output))) {
        problem(checking->problems, "node %s (%s): %s is linked to output %g of node %s, but lancectl knows %d of %s",
                node->id, node->title, input->name, output, from->id, from->kind->outputs, from->kind->id);
        return;
    }
    const char *type = from->kind->output[(int)output].type;
    if (!node_types_fit(type, input->type) && !node_types_fit(input->type, type))
        problem(checking->problems, "node %s (%s): %s has to be %s, and node %s gives %s", node->id, node->title,
                input->name, input->type, from->id, type);
    node->input[index] = (struct graph_input){.is_linked = true, .node = found->node, .output = (int)output};
}

/* A file that is read. */
static void check_file(struct checking *checking, const struct graph_node *node, int index)
{
    struct error error;
    const struct node_input *input = &node->kind->input[index];
    const struct value *value = node->input[index].value;
    if (!json_text(input->entry, "file"))
        return;
    char *path;
    int code = input_file_find(&path, value->text, checking->folders, &error);
    if (code == ERROR_BAD_FILE)
        problem_file(checking->problems, "node %s (%s): %s", node->id, node->title, error.text);
    else if (code)
        problem(checking->problems, "node %s (%s): %s %s", node->id, node->title, input->name, error.text);
    free(path);
}

/* The beginning of names of files that are written; values of all nodes may stand in it. */
static void check_saved_name(struct checking *checking, const struct graph_node *node, int index)
{
    struct error error;
    const struct node_input *input = &node->kind->input[index];
    const struct value *value = node->input[index].value;
    const char *becomes = json_text(input->entry, "becomes");
    const bool saves =
        becomes && !strcmp(becomes, "name") && node->kind->does && !strcmp(node->kind->does, "save_file");
    if (!value || (!saves && !cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(input->entry, "names_files"))))
        return;
    if (save_name_check(value->text, checking->graph, &error))
        problem(checking->problems, "node %s (%s): %s %s", node->id, node->title, input->name, error.text);
}

static int read_input(struct checking *checking, struct graph_node *node, int index, struct error *error)
{
    const struct node_input *input = &node->kind->input[index];
    const cJSON *item =
        cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(node->entry, "inputs"), input->name);
    const bool is_absent = !item || (cJSON_IsNull(item) && input->is_optional);
    if (is_absent)
        item = input->is_optional ? cJSON_GetObjectItemCaseSensitive(input->entry, "default") : NULL;
    if (!item) {
        if (!input->is_optional)
            problem(checking->problems, "node %s (%s): has no %s", node->id, node->title, input->name);
        return 0;
    }
    if (is_link(item)) {
        read_link(checking, node, index, item);
        return 0;
    }
    int code = literal_read(&node->input[index].value, item, input, error);
    if (code == ERROR_NO_MEMORY)
        return code;
    if (code)
        problem(checking->problems, "node %s (%s): %s %s", node->id, node->title, input->name, error->text);
    else
        check_file(checking, node, index);
    return 0;
}

/* A size that may be left to the resolution: both sides or neither. */
static void check_own_size(struct checking *checking, const struct graph_node *node)
{
    double sides[2] = {0};
    int given = 0;
    for (int i = 0; i < node->kind->inputs; i++) {
        const char *part = json_text(node->kind->input[i].entry, "part");
        if (part && strcmp(part, "preset") != 0 && node->input[i].value && given < 2)
            sides[given++] = value_number(node->input[i].value);
    }
    if (given < 2)
        return;
    if ((sides[0] == 0) != (sides[1] == 0))
        problem(checking->problems, "node %s (%s): give both width and height or neither (0): they are %g and %g",
                node->id, node->title, sides[0], sides[1]);
    for (int i = 0; i < 2; i++)
        if (sides[i] != 0 && (fmod(sides[i], VAE_SPATIAL_STRIDE) != 0 || sides[i] < least_source_size()))
            problem(checking->problems,
                    "node %s (%s): width and height must be multiples of %d from %d to %d (0: as the resolution "
                    "says), one is %g",
                    node->id, node->title, VAE_SPATIAL_STRIDE, least_source_size(), LARGEST_SIDE, sides[i]);
}

int check_nodes(struct graph *graph, const struct graph_folders *folders, struct problems *problems,
                struct error *error)
{
    struct place *places = calloc((size_t)graph->count, sizeof *places);
    if (!places)
        return error_set(error, ERROR_NO_MEMORY, "no memory for the graph");
    for (int i = 0; i < graph->count; i++)
        places[i] = (struct place){graph->nodes[i].id, i};
    qsort(places, (size_t)graph->count, sizeof *places, compare_places);
    for (int i = 1; i < graph->count; i++)
        if (!strcmp(places[i].id, places[i - 1].id))
            problem(problems, "node %.60s is there twice", places[i].id);
    struct checking checking = {graph, folders, problems, places};
    int code = 0;
    for (int i = 0; !code && i < graph->count; i++) {
        for (int input = 0; !code && input < graph->nodes[i].kind->inputs; input++)
            code = read_input(&checking, &graph->nodes[i], input, error);
        check_own_size(&checking, &graph->nodes[i]);
    }
    for (int i = 0; !code && i < graph->count; i++)
        for (int input = 0; input < graph->nodes[i].kind->inputs; input++)
            check_saved_name(&checking, &graph->nodes[i], input);
    free(places);
    return code;
}
