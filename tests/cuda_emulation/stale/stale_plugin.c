/* stale_plugin.c: a plugin that says it was built for another version of kernels.h, for tests/unit/test_cuda_plugin.c. */
#include <stdlib.h>

unsigned kernels_cuda_abi(void);
int kernels_cuda_open(void);

unsigned kernels_cuda_abi(void)
{
    return 1;
}

int kernels_cuda_open(void)
{
    abort(); /* its struct kernels has another layout: nobody may get here */
}
