/* graph_file.h: a saved graph of ComfyUI in its API form, as JSON: {"3": {"class_type": ..., "inputs": {...},
 * "_meta": {...}}, ...}, a link being ["node", output]. What POST /prompt takes ({"prompt": ..., "extra_data": ...})
 * is read as well. */
#ifndef LANCECTL_GRAPH_GRAPH_FILE_H
#define LANCECTL_GRAPH_GRAPH_FILE_H

#include <cjson/cJSON.h>

#include "base/error.h"

struct graph_file {
    cJSON *nodes;    /* the API form, of which every member is a node */
    cJSON *workflow; /* the form that is drawn, where the file has it beside the other; or NULL */
};

/* Read a file. Whole numbers that a double cannot hold, as seeds are, stay as they are written (items of the type
 * cJSON_Raw). Errors: ERROR_BAD_FILE saying what the file is instead and what to do, ERROR_TOO_LARGE,
 * ERROR_NO_MEMORY. */
int graph_file_read(struct graph_file *out, const char *path, struct error *error);

void graph_file_close(struct graph_file *file);

#endif
