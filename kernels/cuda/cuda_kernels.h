/* cuda_kernels.h: the only face of the CUDA plugin, liblanced_cuda.so.
 *
 * The program opens the plugin at run time (kernels/plugin.c), so that one `lanced` serves machines with and without a
 * card. The plugin takes error_set and error_prefix from the program that loaded it. Everything else it exports is
 * below. C and C++.
 */
#ifndef LANCE_CUDA_KERNELS_H
#define LANCE_CUDA_KERNELS_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cuda_options {
    int device; /* number of the card, 0 for the first; for another, every thread that uses the
                 * instance calls cudaSetDevice */
};

/* Raised whenever what program and plugin share changes: a struct, an enum, an operator's place or arguments, here or
 * in a header that this one includes. tests/python/test_kernels_abi.py notices, and says what to record. */
#define KERNELS_ABI 8u

/* The KERNELS_ABI this plugin was compiled with; a program asks this first and calls
 * kernels_cuda_open only when it is its own. */
__attribute__((visibility("default"))) unsigned kernels_cuda_abi(void);

/* Open the backend on a card. Errors: ERROR_UNSUPPORTED when there is no card, the driver is too old, or the card is
 * older than compute capability 8.0; ERROR_NO_MEMORY. Close with (*out)->close. */
__attribute__((visibility("default"))) int kernels_cuda_open(struct kernels **out, const struct cuda_options *options,
                                                             struct error *error);

#ifdef __cplusplus
}
#endif

#endif
