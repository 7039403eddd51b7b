/* report.h: what a run of a graph tells on stdout: files as they are written and texts as they come, or one JSON
 * object at its end. */
#ifndef LANCECTL_GRAPH_REPORT_H
#define LANCECTL_GRAPH_REPORT_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "tools/lancectl/graph/graph.h"

struct report {
    bool is_json;
    cJSON *outputs; /* by node: {"files": [...]} or {"text": [...]} */
    cJSON *receipts;
};

int report_open(struct report *out, bool is_json, struct error *error);
void report_close(struct report *report);

/* A file that a node wrote. */
void report_file(struct report *report, const struct graph_node *node, const char *path);

/* A text that a node shows; without --json after the node's title. */
void report_text(struct report *report, const struct graph_node *node, const char *text);

/* How a job was made. */
void report_receipt(struct report *report, const cJSON *receipt);

/* Print the JSON object, if it is wanted. */
void report_end(struct report *report);

#endif
