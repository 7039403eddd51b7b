/* parameters_json.c: see parameters_json.h. */
#include "daemon/parameters_json.h"

#include "daemon/request.h"

const char *parameter_kind_name(enum parameter_kind kind)
{
    static const char *const names[] = {
        [PARAMETER_TEXT] = "text",     [PARAMETER_INTEGER] = "integer", [PARAMETER_WHOLE] = "whole",
        [PARAMETER_NUMBER] = "number", [PARAMETER_FLAG] = "flag",       [PARAMETER_CHOICE] = "choice",
        [PARAMETER_LIST] = "list"};
    return names[kind];
}

cJSON *parameter_default_json(const struct parameter *parameter, enum lance_task task)
{
    const struct parameter_value *value = parameter_default(parameter, task);
    if (parameter->is_required || (parameter->is_open && !value->text && value->numbers[0] == 0))
        return json_null();
    switch (parameter->kind) {
    case PARAMETER_TEXT: return json_from_text(value->text);
    case PARAMETER_FLAG: return json_from_bool(value->numbers[0] != 0);
    case PARAMETER_CHOICE: return json_from_text(parameter->choices[(int)value->numbers[0]]);
    case PARAMETER_LIST: return json_from_numbers(value->numbers, 2);
    case PARAMETER_INTEGER:
    case PARAMETER_WHOLE:
    case PARAMETER_NUMBER: break;
    }
    return json_from_number(value->numbers[0]);
}

/* `default`: that of the first task; `defaults`: those of tasks that have another one, where there are such. */
static void add_defaults(cJSON *json, const struct parameter *parameter)
{
    const struct parameter_value *first = NULL;
    cJSON *others = NULL;
    for (int task = 0; task < LANCE_TASK_COUNT; task++) {
        if (!parameter_is_for(parameter, (enum lance_task)task))
            continue;
        const struct parameter_value *value = parameter_default(parameter, (enum lance_task)task);
        if (!first) {
            first = value;
            json_add(json, "default", parameter_default_json(parameter, (enum lance_task)task));
        } else if (value != first) {
            others = others ? others : json_add_object(json, "defaults");
            json_add(others, lance_task_name((enum lance_task)task),
                     parameter_default_json(parameter, (enum lance_task)task));
        }
    }
}

static void add_range(cJSON *json, const struct parameter *parameter)
{
    if (parameter->kind == PARAMETER_WHOLE) {
        json_add_number(json, "minimum", 0);
        json_add(json, "maximum", json_from_uint64(UINT64_MAX));
    } else if (parameter->kind == PARAMETER_TEXT) {
        if (parameter->high > 0)
            json_add_number(json, "maximum_bytes", parameter->high);
    } else if (parameter->low < parameter->high) {
        json_add_number(json, "minimum", parameter->low);
        json_add_number(json, "maximum", parameter->high);
    }
    if (parameter->multiple > 0)
        json_add_number(json, "multiple_of", parameter->multiple);
    if (!parameter->choices)
        return;
    cJSON *choices = json_add_array(json, "choices");
    for (int i = 0; parameter->choices[i]; i++)
        json_append_text(choices, parameter->choices[i]);
}

static void add_table(cJSON *object, const char *name, const struct parameter *table)
{
    cJSON *rows = json_add_array(object, name);
    for (const struct parameter *p = table; p->name; p++) {
        cJSON *row = json_object();
        json_add_text(row, "name", p->name);
        json_add_text(row, "kind", parameter_kind_name(p->kind));
        if (p->is_required)
            json_add_bool(row, "required", true);
        add_defaults(row, p);
        add_range(row, p);
        cJSON *tasks = json_add_array(row, "tasks");
        for (int task = 0; task < LANCE_TASK_COUNT; task++)
            if (parameter_is_for(p, (enum lance_task)task))
                json_append_text(tasks, lance_task_name((enum lance_task)task));
        json_add_text(row, "help", p->help);
        json_append(rows, row);
    }
}

void parameters_add_json(cJSON *object)
{
    add_table(object, "parameters", lance_parameters);
    add_table(object, "server_parameters", server_parameters);
}
