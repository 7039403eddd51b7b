/* node_run.c: see node_run.h. */
#include "tools/lancectl/graph/node_run.h"

#include <stdlib.h>
#include <string.h>

#include "tools/lancectl/graph/literal.h"

/* One value as an input takes it. */
static int take(struct list *list, struct value *value, const struct node_input *input, struct error *error)
{
    if (value->kind == VALUE_NOTHING && input->is_optional)
        return 0;
    const bool is_plain = value->kind <= VALUE_FLAG && !node_type_is_linked(input->type);
    if (!is_plain && !node_types_fit(value_kind_name(value->kind), input->type))
        return error_set(error, ERROR_BAD_REQUEST, "%s has to be %s, and is %s", input->name, input->type,
                         value_kind_name(value->kind));
    struct value *made;
    int code = literal_convert(&made, value, input, error);
    if (code)
        return error_prefix(error, "%s", input->name);
    return list_add(list, made, error);
}

static const struct list *source_of(const struct graph_input *input, const struct node_run *all)
{
    return &all[input->node].output[input->output];
}

/* How often a node runs: once for each item of its longest list. */
static int runs_of(const struct graph_node *node, const struct node_run *all)
{
    int longest = 1;
    for (int i = 0; i < node->kind->inputs && !node->kind->takes_lists; i++) {
        const struct graph_input *input = &node->input[i];
        const int count = input->is_linked ? source_of(input, all)->count : 1;
        if (count == 0)
            return 0;
        longest = count > longest ? count : longest;
    }
    return longest;
}

/* What comes into one run, of which shorter lists give their last item. */
static int fill(struct work *work, int index, const struct node_run *all, struct error *error)
{
    const struct node_kind *kind = work->node->kind;
    int code = 0;
    for (int i = 0; !code && i < kind->inputs; i++) {
        const struct graph_input *input = &work->node->input[i];
        if (!input->is_linked) {
            code = input->value ? list_add(&work->input[i], value_hold(input->value), error) : 0;
            continue;
        }
        const struct list *source = source_of(input, all);
        if (!kind->takes_lists)
            code = take(&work->input[i], source->items[index < source->count ? index : source->count - 1],
                        &kind->input[i], error);
        for (int item = 0; !code && kind->takes_lists && item < source->count; item++)
            code = take(&work->input[i], source->items[item], &kind->input[i], error);
    }
    return code;
}

int node_run_open(struct node_run *run, const struct context *context, const struct graph_node *node,
                  const struct node_run *all, struct error *error)
{
    const int count = runs_of(node, all);
    run->state = NODE_RUNS;
    run->works = calloc((size_t)count + 1, sizeof *run->works);
    if (!run->works)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a node");
    run->work_count = count;
    int code = 0;
    for (int i = 0; !code && i < count; i++) {
        run->works[i] = (struct work){.context = context, .node = node};
        code = fill(&run->works[i], i, all, error);
    }
    return code;
}

static void close_works(struct node_run *run)
{
    for (int i = 0; i < run->work_count; i++)
        work_close(&run->works[i]);
    free(run->works);
    run->works = NULL;
    run->work_count = 0;
}

int node_run_finish(struct node_run *run, struct error *error)
{
    int code = 0;
    for (int i = 0; i < run->work_count; i++)
        for (int output = 0; output < MAX_OUTPUTS; output++) {
            const struct list *made = &run->works[i].output[output];
            for (int item = 0; !code && item < made->count; item++)
                code = list_add(&run->output[output], value_hold(made->items[item]), error);
        }
    close_works(run);
    run->state = NODE_DONE;
    return code;
}

void node_run_close(struct node_run *run)
{
    close_works(run);
    for (int output = 0; output < MAX_OUTPUTS; output++)
        list_close(&run->output[output]);
}
