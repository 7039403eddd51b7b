/* backend.c: see backend.h. */
#include "kernels/backend.h"

#include <string.h>

#include "kernels/plugin.h"

int backend_of(const char *name)
{
    static const char *const names[] = {"auto", "cpu", "cuda"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, names[i]))
            return i;
    return -1;
}

int backend_open(struct kernels **out, enum backend choice, int threads, struct error *why_not_cuda, struct error *error)
{
    struct error unwanted;
    struct error *why = why_not_cuda ? why_not_cuda : &unwanted;
    *why = (struct error){0};
    if (choice == BACKEND_CUDA)
        return kernels_cuda_load(out, 0, error);
    if (choice == BACKEND_AUTO && kernels_cuda_load(out, 0, why) == 0)
        return 0;
    return kernels_cpu_open(out, threads, CPU_AUTO, error);
}
