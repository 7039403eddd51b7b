/* plugin.c: finding and opening the CUDA backend's plugin; see plugin.h. */
#include "kernels/plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cuda/cuda_kernels.h"

#define PLUGIN "liblanced_cuda.so"

/* The running program's folder, without a slash at its end; "." when the system does not say. */
static void program_folder(char *folder, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", folder, size - 1);
    folder[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash)
        *slash = '\0';
    else
        snprintf(folder, size, ".");
}

static int find(char *path, size_t size, struct error *error)
{
    const char *wish = getenv("LANCED_CUDA_PLUGIN");
    if (wish && *wish) {
        if (snprintf(path, size, "%s", wish) < (int)size && !access(path, R_OK))
            return 0;
        return error_set(error, ERROR_NOT_FOUND, "LANCED_CUDA_PLUGIN: there is no readable file %s", wish);
    }
    char folder[PATH_MAX];
    program_folder(folder, sizeof folder);
    static const char *const places[] = {"", "/../lib/lanced"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (snprintf(path, size, "%s%s/" PLUGIN, folder, places[i]) < (int)size && !access(path, R_OK))
            return 0;
    return error_set(error, ERROR_NOT_FOUND,
                     "no CUDA plugin: " PLUGIN
                     " is neither in %s nor in ../lib/lanced from there; build it with 'make cuda', "
                     "or name it in LANCED_CUDA_PLUGIN",
                     folder);
}

int kernels_cuda_load(struct kernels **out, int device, struct error *error)
{
    *out = NULL;
    char path[PATH_MAX + 64];
    int failed = find(path, sizeof path, error);
    if (failed)
        return failed;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return error_set(error, ERROR_BAD_FILE, "the CUDA plugin cannot be loaded: %s", dlerror());
    unsigned (*abi)(void);
    int (*open)(struct kernels **, const struct cuda_options *, struct error *);
    *(void **)&abi = dlsym(library, "kernels_cuda_abi");
    *(void **)&open = dlsym(library, "kernels_cuda_open");
    if (!abi || !open || abi() != KERNELS_ABI) {
        failed = error_set(error, ERROR_BAD_FILE, "%s %s; build it again with 'make cuda'", path,
                           abi && open ? "was built for another version of lanced" : "is no CUDA plugin of lanced");
        dlclose(library);
        return failed;
    }
    return open(out, &(struct cuda_options){.device = device}, error);
}
