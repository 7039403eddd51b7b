/* save_name.h: names of the files that a graph saves, as ComfyUI makes them: what a filename_prefix says, and a
 * number that is free. */
#ifndef LANCECTL_GRAPH_SAVE_NAME_H
#define LANCECTL_GRAPH_SAVE_NAME_H

#include "tools/lancectl/graph/graph.h"

/* Where the files of one node go. */
struct save_name {
    char *folder; /* exists */
    char *name;   /* before "_00001_" */
    int counter;  /* of the first file */
};

/* Whether what a prefix stands for stays in the folder of outputs. ERROR_BAD_REQUEST otherwise; ERROR_NO_MEMORY. */
int save_name_check(const char *prefix, const struct graph *graph, struct error *error);

/* Replace in a prefix what ComfyUI's front end and ComfyUI replace - %date:yyyy-MM-dd% (%date% alone is that),
 * %NODE.INPUT% (a node by its class or its title), %width%, %height%, %year%, ... %second% - and find the next
 * number in the folder, which is made if need be. Close with save_name_close. Errors: as save_name_check; ERROR_IO;
 * ERROR_NO_MEMORY. */
int save_name_open(struct save_name *out, const char *prefix, const struct graph *graph, const char *output_folder,
                   int width, int height, struct error *error);
void save_name_close(struct save_name *name);

/* The path of file `index` (from 0); `ending` with its dot. malloc'ed; NULL: out of memory. */
char *save_name_path(const struct save_name *name, int index, const char *ending);

/* Make a folder and those above it. ERROR_IO. */
int make_folders(const char *path, struct error *error);

#endif
