/* input_file.h: the files that loaders of a graph name: in the folder of inputs, or "NAME [output]" in that of
 * outputs. */
#ifndef LANCECTL_GRAPH_INPUT_FILE_H
#define LANCECTL_GRAPH_INPUT_FILE_H

#include "tools/lancectl/graph/graph.h"

/* The path of a file that a loader names; malloc'ed. Errors: ERROR_BAD_REQUEST for a name that leads out of its
 * folder; ERROR_BAD_FILE for one that is not there, is no file, or may not be read; ERROR_NO_MEMORY. */
int input_file_find(char **path, const char *name, const struct graph_folders *folders, struct error *error);

/* A path without "." and "..", as it is below a folder; malloc'ed, "" for the folder itself. NULL: it leads out of
 * the folder, or there is no memory. */
char *path_below(const char *path);

#endif
