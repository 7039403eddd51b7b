/* work.c: see work.h. */
#include "tools/lancectl/graph/work.h"

#include <stdlib.h>
#include <string.h>

#include "tools/lancectl/graph/edit_by_mask.h"

int list_add(struct list *list, struct value *value, struct error *error)
{
    struct value **items = value ? realloc(list->items, (size_t)(list->count + 1) * sizeof *items) : NULL;
    if (!items) {
        value_release(value);
        return error_set(error, ERROR_NO_MEMORY, "no memory for a result");
    }
    list->items = items;
    items[list->count++] = value;
    return 0;
}

void list_close(struct list *list)
{
    for (int i = 0; i < list->count; i++)
        value_release(list->items[i]);
    free(list->items);
    *list = (struct list){0};
}

void work_close(struct work *work)
{
    for (int i = 0; i < MAX_INPUTS; i++)
        list_close(&work->input[i]);
    for (int i = 0; i < MAX_OUTPUTS; i++)
        list_close(&work->output[i]);
    for (int i = 0; i < work->ask_count; i++) {
        struct ask *ask = &work->asks[i];
        cJSON_Delete(ask->params);
        job_result_close(ask->result);
        for (size_t tensor = 0; tensor < ask->tensor_count; tensor++)
            free(ask->owned[tensor]);
    }
    free(work->asks);
    edits_by_mask_close(work->edits, work->edit_count);
    *work = (struct work){0};
}

struct value *work_value(const struct work *work, const char *name)
{
    const int place = node_kind_input(work->node->kind, name);
    return place >= 0 && work->input[place].count ? work->input[place].items[0] : NULL;
}

double work_number(const struct work *work, const char *name)
{
    return value_number(work_value(work, name));
}

const char *work_text(const struct work *work, const char *name)
{
    const struct value *value = work_value(work, name);
    return value ? value->text : NULL;
}

int work_give(struct work *work, int output, struct value *value, struct error *error)
{
    return list_add(&work->output[output], value, error);
}

struct ask *work_ask(struct work *work, const char *task)
{
    struct ask *asks = realloc(work->asks, (size_t)(work->ask_count + 1) * sizeof *asks);
    if (!asks)
        return NULL;
    work->asks = asks;
    struct ask *ask = &asks[work->ask_count++];
    *ask = (struct ask){.task = task, .params = json_object()};
    job_id_make(ask->id);
    return ask->params ? ask : NULL;
}

void ask_add(struct ask *ask, const char *name, enum dtype dtype, int dimensions, const int *shape, const void *data,
             void *owned)
{
    struct tensor_view *tensor = &ask->tensors[ask->tensor_count];
    ask->owned[ask->tensor_count++] = owned;
    *tensor = (struct tensor_view){
        .name = name, .dtype = dtype, .dimensions = dimensions, .data = data, .bytes = dtype_bytes(dtype)};
    for (int i = 0; i < dimensions; i++) {
        tensor->shape[i] = (uint64_t)shape[i];
        tensor->bytes *= (uint64_t)shape[i];
    }
}
