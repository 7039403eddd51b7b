/* other_packs.c: see other_packs.h. */
#include "tools/lancectl/graph/other_packs.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tools/lancectl/data_file.h"

static const cJSON *member(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static cJSON *inputs_of(const cJSON *node)
{
    return cJSON_GetObjectItemCaseSensitive(node, "inputs");
}

static bool lists(const cJSON *names, const char *name)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, names) {
        if (!strcmp(item->valuestring, name))
            return true;
    }
    return false;
}

/* What the table says of a saved node, told by the names of its inputs; NULL: nothing that has them all. *is_known:
 * the id is. */
static const cJSON *entry_for(const cJSON *table, const cJSON *node, bool *is_known)
{
    const cJSON *entry, *found = NULL, *input;
    *is_known = false;
    cJSON_ArrayForEach(entry, member(table, "nodes")) {
        if (strcmp(json_text(entry, "id"), json_text(node, "class_type")) != 0)
            continue;
        *is_known = true;
        const cJSON *names = member(entry, "inputs");
        bool has_all = true;
        cJSON_ArrayForEach(input, inputs_of(node))
            has_all = has_all && lists(names, input->string);
        if (has_all && (!found || cJSON_GetArraySize(names) < cJSON_GetArraySize(member(found, "inputs"))))
            found = entry;
    }
    return found;
}

/* The folder that a flavour and a precision name, "Lance-3B-AWQ-INT4". */
static void wish_model(cJSON *node, const cJSON *entry, const cJSON *theirs)
{
    const cJSON *of = member(entry, "model_of");
    if (!of)
        return;
    const char *flavour = json_text(theirs, cJSON_GetArrayItem(of, 0)->valuestring);
    const char *precision = json_text(theirs, cJSON_GetArrayItem(of, 1)->valuestring);
    const char *ending = precision && !strcmp(precision, "awq_int4") ? "-AWQ-INT4"
                         : precision && !strcmp(precision, "nvfp4")  ? "-NVFP4"
                                                                     : "";
    char *name;
    if (flavour && asprintf(&name, "%s%s", flavour, ending) >= 0) {
        json_add_text(node, WISHED_MODEL, name);
        free(name);
    }
}

static cJSON *made_inputs(const cJSON *table, const cJSON *entry, const cJSON *theirs)
{
    const cJSON *defaults = member(member(table, "defaults"), json_text(entry, "becomes")), *item;
    cJSON *made = cJSON_Duplicate(defaults, true);
    cJSON_ArrayForEach(item, member(entry, "take")) {
        const cJSON *value = member(theirs, item->valuestring);
        if (value)
            json_replace(made, item->string, cJSON_Duplicate(value, true));
    }
    const char *resolution = json_text(made, "resolution");
    if (resolution && !strcmp(resolution, "auto"))
        json_replace(made, "resolution", cJSON_Duplicate(member(defaults, "resolution"), true));
    const char *size_name = json_text(entry, "size"), *size = size_name ? json_text(theirs, size_name) : NULL;
    int height, width;
    if (size && sscanf(size, "%6dx%6d", &height, &width) == 2) {
        json_replace(made, "height", json_from_number(height));
        json_replace(made, "width", json_from_number(width));
    }
    return made;
}

/* Whether the node asks for what ours cannot do. */
static bool asks_too_much(const cJSON *node, const cJSON *entry, struct problems *problems)
{
    const cJSON *only;
    cJSON_ArrayForEach(only, member(entry, "only")) {
        const cJSON *asked = member(inputs_of(node), only->string);
        if (asked && !cJSON_Compare(asked, only, true)) {
            problem(problems, "node %s: %s with another %s than usual has no counterpart among lanced's nodes",
                    node->string, json_text(node, "class_type"), only->string);
            return true;
        }
    }
    return false;
}

/* What became of a node: its entry, and the inputs that it had. */
struct moved {
    const char *id;
    const cJSON *entry;
    cJSON *had;
};

static int compare_moved(const void *a, const void *b)
{
    return strcmp(((const struct moved *)a)->id, ((const struct moved *)b)->id);
}

/* The id of the node that saves an output of node `id` and gives the file's path; added to the graph if it is not
 * there yet. */
static cJSON *link_to_file(cJSON *nodes, const cJSON *table, const char *id, int output)
{
    char *name;
    if (asprintf(&name, "%s:file%d", id, output) < 0)
        return NULL;
    if (!member(nodes, name)) {
        cJSON *node = json_add_object(nodes, name), *what = json_array();
        json_add_text(node, "class_type", "LancedSaveFile");
        json_append_text(what, id);
        json_append_number(what, output);
        cJSON *inputs = cJSON_Duplicate(member(member(table, "defaults"), "LancedSaveFile"), true);
        json_add(inputs, "what", what);
        json_add(node, "inputs", inputs);
    }
    cJSON *link = json_array();
    json_append_text(link, name);
    json_append_number(link, 0);
    free(name);
    return link;
}

/* Where a link to output `index` of a moved node leads now. *is_gone: nothing here gives it. NULL otherwise: it
 * stays, as *output. */
static cJSON *new_link(cJSON *nodes, const cJSON *table, const struct moved *from, int index, bool *is_gone,
                       int *output)
{
    char key[16];
    snprintf(key, sizeof key, "%d", index);
    const cJSON *target = member(member(from->entry, "outputs"), key);
    const char *input = json_text(target, "input");
    *is_gone = !target || (input && !member(from->had, input));
    *output = cJSON_IsNumber(target) ? target->valueint : 0;
    if (*is_gone || cJSON_IsNumber(target))
        return NULL;
    return input ? cJSON_Duplicate(member(from->had, input), true)
                 : link_to_file(nodes, table, from->id, member(target, "file_of")->valueint);
}

static void move_links(cJSON *nodes, const cJSON *table, cJSON *node, const struct moved *moved, size_t count)
{
    for (cJSON *value = inputs_of(node) ? inputs_of(node)->child : NULL, *next; value; value = next) {
        next = value->next;
        const cJSON *source = cJSON_GetArrayItem(value, 0), *index = cJSON_GetArrayItem(value, 1);
        if (!cJSON_IsArray(value) || !cJSON_IsString(source) || !cJSON_IsNumber(index))
            continue;
        const struct moved key = {.id = source->valuestring};
        const struct moved *from = bsearch(&key, moved, count, sizeof *moved, compare_moved);
        bool is_gone;
        int output;
        if (!from)
            continue;
        cJSON *link = new_link(nodes, table, from, index->valueint, &is_gone, &output);
        if (is_gone)
            cJSON_Delete(cJSON_DetachItemViaPointer(inputs_of(node), value));
        else if (link)
            cJSON_ReplaceItemInObjectCaseSensitive(inputs_of(node), value->string, link);
        else
            cJSON_SetNumberValue(cJSON_GetArrayItem(value, 1), output);
    }
}

static int convert(cJSON *nodes, const cJSON *table, struct problems *problems, struct error *error)
{
    size_t count = 0;
    struct moved *moved = calloc((size_t)cJSON_GetArraySize(nodes) + 1, sizeof *moved);
    if (!moved)
        return error_set(error, ERROR_NO_MEMORY, "no memory for the graph");
    cJSON *node;
    cJSON_ArrayForEach(node, nodes) {
        bool is_known;
        const cJSON *entry = entry_for(table, node, &is_known);
        if (is_known && !entry)
            problem(problems, "node %s: no %s is known that has these inputs", node->string,
                    json_text(node, "class_type"));
        if (!entry || asks_too_much(node, entry, problems))
            continue;
        cJSON *theirs = cJSON_DetachItemFromObjectCaseSensitive(node, "inputs");
        moved[count++] = (struct moved){node->string, entry, theirs};
        json_add(node, "inputs", made_inputs(table, entry, theirs));
        json_replace(node, "class_type", json_from_text(json_text(entry, "becomes")));
        wish_model(node, entry, theirs);
    }
    qsort(moved, count, sizeof *moved, compare_moved);
    /* cJSON's first item knows the last one; others are added behind it. */
    cJSON *last = nodes->child ? nodes->child->prev : NULL;
    for (node = nodes->child; count && node; node = node == last ? NULL : node->next)
        move_links(nodes, table, node, moved, count);
    for (size_t i = 0; i < count; i++)
        cJSON_Delete(moved[i].had);
    free(moved);
    return json_is_complete(nodes) ? 0 : error_set(error, ERROR_NO_MEMORY, "no memory for the graph");
}

int other_packs_convert(cJSON *nodes, struct problems *problems, struct error *error)
{
    cJSON *table;
    int code = data_file_read(&table, "other_packs.json", error);
    if (!code) {
        code = convert(nodes, table, problems, error);
        cJSON_Delete(table);
    }
    return code;
}
