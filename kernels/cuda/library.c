/* library.c: see library.h. */
#include "kernels/cuda/library.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *library_open_file(const char *file)
{
    return dlopen(file, RTLD_NOW | RTLD_LOCAL);
}

void *library_open_matching(const char *pattern)
{
    glob_t found;
    void *library = NULL;
    if (glob(pattern, 0, NULL, &found) == 0) {
        for (size_t i = found.gl_pathc; i-- > 0 && !library;) /* the newest name first */
            library = library_open_file(found.gl_pathv[i]);
        globfree(&found);
    }
    return library;
}

static void *open_below(const char *folder, const char *folders, const char *pattern)
{
    char path[4096];
    if (!folder || snprintf(path, sizeof path, "%s/%s/%s", folder, folders, pattern) >= (int)sizeof path)
        return NULL;
    return library_open_matching(path);
}

void *library_open(const struct library_place *place)
{
    const char *named = getenv(place->variable);
    if (named)
        return *named ? library_open_file(named) : NULL;
    void *library = NULL;
    for (size_t i = 0; i < sizeof place->sonames / sizeof *place->sonames && !library; i++)
        if (place->sonames[i])
            library = library_open_file(place->sonames[i]);
    static const char wheels[] = "lib/python3*/*-packages/nvidia/*/lib";
    const char *const folders[] = {getenv("VIRTUAL_ENV"), getenv("CONDA_PREFIX"), "/usr/local", "/usr"};
    const char *home = getenv("HOME");
    char local[4096];
    if (!library && !(library = open_below(getenv("CUDA_HOME"), "lib64", place->pattern)) &&
        !(library = open_below("/usr/local", "cuda*/lib64", place->pattern)) && home &&
        snprintf(local, sizeof local, "%s/.local", home) < (int)sizeof local)
        library = open_below(local, wheels, place->pattern);
    for (size_t i = 0; i < sizeof folders / sizeof *folders && !library; i++)
        library = open_below(folders[i], wheels, place->pattern);
    return library;
}

bool library_functions(void *library, const struct library_function *functions, size_t count)
{
    for (size_t i = 0; library && i < count; i++) {
        void *symbol = dlsym(library, functions[i].name);
        if (!symbol)
            return false;
        memcpy(functions[i].to, &symbol, sizeof symbol);
    }
    return library != NULL;
}

void library_close(void *library)
{
    if (library)
        dlclose(library);
}
