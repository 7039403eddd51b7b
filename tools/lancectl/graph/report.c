/* report.c: see report.h. */
#include "tools/lancectl/graph/report.h"

#include <stdio.h>

#include "base/json.h"
#include "tools/lancectl/say.h"

int report_open(struct report *out, bool is_json, struct error *error)
{
    *out = (struct report){.is_json = is_json, .outputs = json_object(), .receipts = json_array()};
    if (out->outputs && out->receipts)
        return 0;
    report_close(out);
    return error_set(error, ERROR_NO_MEMORY, "no memory for the report");
}

void report_close(struct report *report)
{
    cJSON_Delete(report->outputs);
    cJSON_Delete(report->receipts);
    *report = (struct report){0};
}

static void add(struct report *report, const struct graph_node *node, const char *what, const char *text)
{
    cJSON *entry = cJSON_GetObjectItemCaseSensitive(report->outputs, node->id);
    if (!entry)
        entry = json_add_object(report->outputs, node->id);
    cJSON *list = cJSON_GetObjectItemCaseSensitive(entry, what);
    if (!list)
        list = json_add_array(entry, what);
    json_append_text(list, text);
}

void report_file(struct report *report, const struct graph_node *node, const char *path)
{
    add(report, node, "files", path);
    if (!report->is_json) {
        puts(path);
        fflush(stdout);
    }
}

void report_text(struct report *report, const struct graph_node *node, const char *text)
{
    add(report, node, "text", text);
    if (!report->is_json) {
        say(stdout, "%s: %s\n", node->title, text);
        fflush(stdout);
    }
}

void report_receipt(struct report *report, const cJSON *receipt)
{
    if (receipt)
        json_append(report->receipts, cJSON_Duplicate(receipt, true));
}

void report_end(struct report *report)
{
    if (!report->is_json)
        return;
    cJSON *object = json_object();
    json_add(object, "outputs", report->outputs);
    json_add(object, "receipts", report->receipts);
    report->outputs = report->receipts = NULL;
    char *text = json_print(object);
    say(stdout, "%s\n", text ? text : "{}");
    fflush(stdout);
    cJSON_free(text);
    cJSON_Delete(object);
}
