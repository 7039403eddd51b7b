/* node_kinds.c: see node_kinds.h. */
#include "tools/lancectl/graph/node_kinds.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tools/lancectl/data_file.h"

static const char *const table_names[] = {"nodes.json", "core_nodes.json"};
enum { TABLES = sizeof table_names / sizeof *table_names, MAX_KINDS = 128 };

struct node_kinds {
    cJSON *tables[TABLES];
    int count;
    struct node_kind kind[MAX_KINDS];
};

static bool says(const cJSON *entry, const char *name)
{
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(entry, name));
}

static int read_kind(struct node_kind *kind, const cJSON *entry, struct error *error)
{
    *kind = (struct node_kind){.id = entry->string,
                               .does = json_text(entry, "does"),
                               .is_output = says(entry, "output_node"),
                               .takes_lists = says(entry, "takes_lists"),
                               .entry = entry};
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(entry, "inputs")) {
        if (kind->inputs == MAX_INPUTS || !json_text(item, "type"))
            return error_set(error, ERROR_BAD_FILE, "%s has inputs that lancectl does not know", kind->id);
        kind->input[kind->inputs++] =
            (struct node_input){item->string, json_text(item, "type"), says(item, "optional"), item};
    }
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(entry, "outputs")) {
        if (kind->outputs == MAX_OUTPUTS || !json_text(item, "type"))
            return error_set(error, ERROR_BAD_FILE, "%s has outputs that lancectl does not know", kind->id);
        kind->output[kind->outputs++] = (struct node_output){json_text(item, "name"), json_text(item, "type"),
                                                             json_text(item, "is"), says(item, "list")};
    }
    return 0;
}

static int read_table(struct node_kinds *kinds, int index, struct error *error)
{
    int code = data_file_read(&kinds->tables[index], table_names[index], error);
    const cJSON *entry;
    if (!code) {
        cJSON_ArrayForEach(entry, cJSON_GetObjectItemCaseSensitive(kinds->tables[index], "nodes")) {
            if (!code && kinds->count == MAX_KINDS)
                code = error_set(error, ERROR_BAD_FILE, "more than %d kinds of nodes", MAX_KINDS);
            if (!code)
                code = read_kind(&kinds->kind[kinds->count++], entry, error);
        }
        if (code)
            error_prefix(error, "%s", table_names[index]);
    }
    return code;
}

int node_kinds_open(struct node_kinds **out, struct error *error)
{
    struct node_kinds *kinds = *out = calloc(1, sizeof *kinds);
    int code = kinds ? 0 : error_set(error, ERROR_NO_MEMORY, "no memory for the kinds of nodes");
    for (int i = 0; !code && i < TABLES; i++)
        code = read_table(kinds, i, error);
    if (!code)
        return 0;
    node_kinds_close(kinds);
    *out = NULL;
    return code;
}

void node_kinds_close(struct node_kinds *kinds)
{
    for (int i = 0; kinds && i < TABLES; i++)
        cJSON_Delete(kinds->tables[i]);
    free(kinds);
}

const struct node_kind *node_kind_find(const struct node_kinds *kinds, const char *id)
{
    for (int i = 0; i < kinds->count; i++)
        if (!strcmp(kinds->kind[i].id, id))
            return &kinds->kind[i];
    return NULL;
}

int node_kind_input(const struct node_kind *kind, const char *name)
{
    for (int i = 0; i < kind->inputs; i++)
        if (!strcmp(kind->input[i].name, name))
            return i;
    return -1;
}

bool node_types_fit(const char *given, const char *wanted)
{
    if (!strcmp(given, "*") || !strcmp(wanted, "*"))
        return true;
    const size_t length = strlen(given);
    for (const char *at = wanted;; at++) {
        const size_t word = strcspn(at, ",");
        if (word == length && !strncmp(at, given, length))
            return true;
        at += word;
        if (!*at)
            return false;
    }
}

bool node_type_is_linked(const char *type)
{
    static const char *const written[] = {"STRING", "INT", "FLOAT", "BOOLEAN", "COMBO"};
    for (size_t i = 0; i < sizeof written / sizeof *written; i++)
        if (node_types_fit(written[i], type))
            return !strcmp(type, "*");
    return true;
}
