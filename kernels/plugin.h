/* plugin.h: the CUDA backend, loaded at run time. */
#ifndef LANCE_KERNELS_PLUGIN_H
#define LANCE_KERNELS_PLUGIN_H

#include "kernels/kernels.h"

/* Open the backend on card number `device`. The plugin is the file named by the environment variable
 * LANCED_CUDA_PLUGIN if that is set, else liblanced_cuda.so beside the running program or in ../lib/lanced from there.
 * Call it on the thread that will use the backend. The library stays loaded until the program ends. Errors:
 * ERROR_NOT_FOUND when there is no plugin, ERROR_BAD_FILE when it cannot be loaded or was built for another version of
 * lanced, and those of kernels_cuda_open. */
int kernels_cuda_load(struct kernels **out, int device, struct error *error);

#endif
