/* stale_plugin.c: a plugin that says it was built for another version of kernels.h, for
 * tests/unit/test_cuda_plugin.c. */
#include <stdlib.h>

#include "kernels/cuda/cuda_kernels.h"

unsigned kernels_cuda_abi(void)
{
    return KERNELS_ABI - 1;
}

int kernels_cuda_open(struct kernels **out, const struct cuda_options *options, struct error *error)
{
    (void)out, (void)options, (void)error;
    abort(); /* its struct kernels has another layout: nobody may get here */
}
