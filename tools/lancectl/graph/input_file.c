/* input_file.c: see input_file.h. */
#include "tools/lancectl/graph/input_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *path_below(const char *path)
{
    char *made = malloc(strlen(path) + 1);
    size_t used = 0;
    bool leads_out = *path == '/';
    while (made && *path && !leads_out) {
        const size_t length = strcspn(path, "/");
        if (length == 2 && !strncmp(path, "..", 2)) {
            leads_out = used == 0;
            while (used > 0 && made[--used] != '/') {
            }
        } else if (length > 0 && !(length == 1 && *path == '.')) {
            if (used)
                made[used++] = '/';
            memcpy(made + used, path, length);
            used += length;
        }
        path += length + (path[length] == '/');
    }
    if (leads_out) {
        free(made);
        return NULL;
    }
    if (made)
        made[used] = '\0';
    return made;
}

/* The name without ComfyUI's annotation, and the folder that it means. */
static char *without_annotation(const char *name, const struct graph_folders *folders, const char **folder,
                                const char **below)
{
    const struct { const char *annotation, *folder, *below; } known[] = {
        {"[output]", folders->output, ""}, {"[input]", folders->input, ""}, {"[temp]", folders->output, "temp/"}};
    *folder = folders->input;
    *below = "";
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const size_t annotation = strlen(known[i].annotation);
        if (length > annotation && !strcmp(name + length - annotation, known[i].annotation)) {
            *folder = known[i].folder;
            *below = known[i].below;
            length -= annotation + (name[length - annotation - 1] == ' ');
            break;
        }
    }
    return strndup(name, length);
}

int input_file_find(char **path, const char *name, const struct graph_folders *folders, struct error *error)
{
    *path = NULL;
    const char *folder, *below;
    char *plain = without_annotation(name, folders, &folder, &below), *inside = plain ? path_below(plain) : NULL;
    int code = 0;
    struct stat info;
    if (!plain)
        code = error_set(error, ERROR_NO_MEMORY, "no memory");
    else if (!inside || !*inside)
        code = error_set(error, ERROR_BAD_REQUEST, "\"%.200s\" leads out of the folder of inputs", name);
    else if (asprintf(path, "%s/%s%s", folder, below, inside) < 0)
        code = error_set(error, ERROR_NO_MEMORY, "no memory");
    else if (stat(*path, &info))
        code = error_set(error, ERROR_BAD_FILE, "%s: %s%s", *path, strerror(errno),
                         errno == ENOENT ? " (--input-dir names the folder of inputs)" : "");
    else if (!S_ISREG(info.st_mode))
        code = error_set(error, ERROR_BAD_FILE, "%s: is no file", *path);
    else if (access(*path, R_OK))
        code = error_set(error, ERROR_BAD_FILE, "%s: %s", *path, strerror(errno));
    if (code) {
        if (code != ERROR_NO_MEMORY)
            free(*path);
        *path = NULL;
    }
    free(plain);
    free(inside);
    return code;
}
