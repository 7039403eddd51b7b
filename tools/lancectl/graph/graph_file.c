/* graph_file.c: see graph_file.h. */
#include "tools/lancectl/graph/graph_file.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mapped_file.h"

static const struct json_limits limits = {64 << 20, 1 << 21, ERROR_TOO_LARGE, ERROR_BAD_FILE};

enum { EXACT_DIGITS = 15 }; /* that every double holds */
static const char marker[] = "\xee\x80\x80"; /* a character of private use, before digits that were no string */

/* The text with its longest whole numbers as strings after the marker. malloc'ed; NULL: out of memory. */
static char *quote_large_numbers(const char *text, size_t bytes, size_t *quoted_bytes)
{
    size_t longest = bytes + bytes / EXACT_DIGITS * (sizeof marker + 1) + 1, used = 0;
    char *quoted = malloc(longest);
    bool in_string = false;
    for (size_t i = 0; quoted && i < bytes;) {
        size_t length = 1;
        if (in_string && text[i] == '\\' && i + 1 < bytes) {
            length = 2;
        } else if (text[i] == '"') {
            in_string = !in_string;
        } else if (!in_string && (isdigit((unsigned char)text[i]) || text[i] == '-')) {
            while (i + length < bytes && (isalnum((unsigned char)text[i + length]) || strchr("+-.", text[i + length])))
                length++;
            bool is_whole = length > EXACT_DIGITS;
            for (size_t digit = text[i] == '-'; is_whole && digit < length; digit++)
                is_whole = isdigit((unsigned char)text[i + digit]);
            if (is_whole) {
                quoted[used++] = '"';
                memcpy(quoted + used, marker, sizeof marker - 1);
                used += sizeof marker - 1;
            }
            memcpy(quoted + used, text + i, length);
            used += length;
            if (is_whole)
                quoted[used++] = '"';
            i += length;
            continue;
        }
        memcpy(quoted + used, text + i, length);
        used += length;
        i += length;
    }
    *quoted_bytes = used;
    return quoted;
}

static void unquote_large_numbers(cJSON *item)
{
    const size_t length = sizeof marker - 1;
    for (; item; item = item->next) {
        if (cJSON_IsString(item) && !strncmp(item->valuestring, marker, length)) {
            memmove(item->valuestring, item->valuestring + length, strlen(item->valuestring) - length + 1);
            item->type = cJSON_Raw | (item->type & ~0xff);
        }
        unquote_large_numbers(item->child);
    }
}

static int parse(cJSON **out, const char *path, struct error *error)
{
    struct mapped_file file;
    int code = mapped_file_open(&file, path, error);
    if (code)
        return error_prefix(error, "%s", path);
    size_t bytes;
    char *text = NULL;
    if (file.bytes > limits.bytes)
        code = error_set(error, ERROR_TOO_LARGE, "%s: %zu bytes; a graph of at most %zu is accepted", path,
                         (size_t)file.bytes, limits.bytes);
    else if (!(text = quote_large_numbers((const char *)file.data, file.bytes, &bytes)))
        code = error_set(error, ERROR_NO_MEMORY, "%s: no memory", path);
    mapped_file_close(&file);
    if (!code)
        code = json_parse(out, text, bytes, &limits, path, error);
    free(text);
    if (!code)
        unquote_large_numbers(*out);
    return code;
}

/* Whether it is what ComfyUI saves and draws. */
static bool is_drawn_form(const cJSON *root)
{
    return cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(root, "nodes"));
}

static bool is_node(const cJSON *entry)
{
    return cJSON_IsObject(entry) && json_text(entry, "class_type");
}

static int check_form(const cJSON *nodes, const char *path, struct error *error)
{
    if (is_drawn_form(nodes))
        return error_set(
            error, ERROR_BAD_FILE,
            "%s: is a workflow as ComfyUI saves it to be drawn; lancectl takes the API form: in ComfyUI, open it "
            "and choose Workflow > Export (API), or File > Export (API)",
            path);
    if (!cJSON_IsObject(nodes) || !nodes->child)
        return error_set(error, ERROR_BAD_FILE, "%s: is no graph in ComfyUI's API form, which is an object of nodes",
                         path);
    const cJSON *entry;
    cJSON_ArrayForEach(entry, nodes) {
        if (!is_node(entry))
            return error_set(error, ERROR_BAD_FILE,
                             "%s: is no graph in ComfyUI's API form: \"%.60s\" has no class_type", path, entry->string);
        const cJSON *inputs = cJSON_GetObjectItemCaseSensitive(entry, "inputs");
        if (inputs && !cJSON_IsObject(inputs))
            return error_set(error, ERROR_BAD_FILE, "%s: the inputs of node %.60s are no object", path, entry->string);
    }
    return 0;
}

int graph_file_read(struct graph_file *out, const char *path, struct error *error)
{
    *out = (struct graph_file){0};
    cJSON *root;
    int code = parse(&root, path, error);
    if (code)
        return code;
    cJSON *prompt = cJSON_GetObjectItemCaseSensitive(root, "prompt");
    if (cJSON_IsObject(prompt) && !is_node(prompt)) {
        cJSON *extra =
            cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(root, "extra_data"), "extra_pnginfo");
        out->workflow = cJSON_DetachItemFromObjectCaseSensitive(extra, "workflow");
        out->nodes = cJSON_DetachItemViaPointer(root, prompt);
        cJSON_Delete(root);
    } else {
        out->nodes = root;
    }
    code = check_form(out->nodes, path, error);
    if (code)
        graph_file_close(out);
    return code;
}

void graph_file_close(struct graph_file *file)
{
    cJSON_Delete(file->nodes);
    cJSON_Delete(file->workflow);
    *file = (struct graph_file){0};
}
