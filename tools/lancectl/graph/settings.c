/* settings.c: see settings.h. */
#include "tools/lancectl/graph/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tools/lancectl/read_number.h"

static const char *title_of(const cJSON *node)
{
    return json_text(cJSON_GetObjectItemCaseSensitive(node, "_meta"), "title");
}

/* The node of that id, or the only one of that title. *same counts those of the title. */
static cJSON *find_node(cJSON *nodes, const char *name, int *same)
{
    cJSON *found = cJSON_GetObjectItemCaseSensitive(nodes, name), *node;
    *same = 0;
    if (found)
        return found;
    cJSON_ArrayForEach(node, nodes) {
        const char *title = title_of(node);
        if (title && !strcmp(title, name)) {
            found = node;
            ++*same;
        }
    }
    return *same == 1 ? found : NULL;
}

/* What stands for the value in JSON: for an input of that type, or for what stood there before. */
static cJSON *item_of(const char *value, const char *type, const cJSON *before)
{
    const char *end;
    double number;
    const bool is_flag = !strcmp(value, "true") || !strcmp(value, "false");
    const bool wants_number =
        type ? !strcmp(type, "INT") || !strcmp(type, "FLOAT") : cJSON_IsNumber(before) || cJSON_IsRaw(before);
    if (wants_number && read_number(value, &number, &end) && !*end)
        return json_from_digits(value);
    if (is_flag && (type ? !strcmp(type, "BOOLEAN") : cJSON_IsBool(before)))
        return json_from_bool(!strcmp(value, "true"));
    return json_from_text(value);
}

static void put(cJSON *node, const char *input, const char *value, const struct node_kind *kind)
{
    cJSON *inputs = cJSON_GetObjectItemCaseSensitive(node, "inputs");
    const int place = kind ? node_kind_input(kind, input) : -1;
    if (!inputs)
        inputs = json_add_object(node, "inputs");
    const cJSON *before = cJSON_GetObjectItemCaseSensitive(inputs, input);
    cJSON *item = item_of(value, place >= 0 ? kind->input[place].type : NULL, before);
    cJSON_DeleteItemFromObjectCaseSensitive(inputs, input);
    json_add(inputs, input, item);
}

/* Say what is wrong; returns true, as for a setting that needs no more looking at. */
static bool refuse(const char *setting, cJSON *nodes, const char *name, const char *input,
                   const struct node_kinds *kinds, struct problems *problems)
{
    int same;
    const cJSON *node = find_node(nodes, name, &same);
    if (same > 1) {
        problem(problems, "--set %s: %d nodes have the title \"%s\"; name the one that is meant by its id", setting,
                same, name);
        return true;
    }
    const struct node_kind *kind = node ? node_kind_find(kinds, json_text(node, "class_type")) : NULL;
    if (!kind) {
        problem(problems, "--set %s: there is no node of the id or title \"%s\"", setting, name);
        return true;
    }
    char listed[400] = "";
    size_t used = 0;
    for (int i = 0; i < kind->inputs && used < sizeof listed; i++)
        used += (size_t)snprintf(listed + used, sizeof listed - used, "%s%s", i ? ", " : "", kind->input[i].name);
    problem(problems, "--set %s: %s has no input \"%s\"; it has %s", setting, kind->id, input, listed);
    return true;
}

/* Do one setting, if a node and an input can be found for it. Both may have dots in their names. */
static bool apply(cJSON *nodes, const char *setting, const struct node_kinds *kinds, bool is_last,
                  struct problems *problems)
{
    const char *value = strchr(setting, '=');
    char *name = value ? strndup(setting, (size_t)(value - setting)) : NULL;
    char *dot = name ? strchr(name, '.') : NULL;
    if (!dot) {
        problem(problems, "--set %s: is not NODE.INPUT=VALUE, such as 3.seed=7", setting);
        free(name);
        return true;
    }
    bool is_done = false;
    for (; dot && !is_done; dot = strchr(dot + 1, '.')) {
        *dot = '\0';
        int same;
        cJSON *node = find_node(nodes, name, &same);
        const struct node_kind *kind = node ? node_kind_find(kinds, json_text(node, "class_type")) : NULL;
        const cJSON *inputs = cJSON_GetObjectItemCaseSensitive(node, "inputs");
        is_done = node && (cJSON_GetObjectItemCaseSensitive(inputs, dot + 1) ||
                           (is_last && kind && node_kind_input(kind, dot + 1) >= 0));
        if (is_done)
            put(node, dot + 1, value + 1, kind);
        else if (is_last && (node || same > 1 || !strchr(dot + 1, '.')))
            is_done = refuse(setting, nodes, name, dot + 1, kinds, problems);
        *dot = '.';
    }
    free(name);
    return is_done;
}

void settings_apply(cJSON *nodes, const char **settings, int count, const struct node_kinds *kinds, bool is_last,
                    struct problems *problems)
{
    for (int i = 0; i < count; i++)
        if (settings[i] && apply(nodes, settings[i], kinds, is_last, problems))
            settings[i] = NULL;
}
