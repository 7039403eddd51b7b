/* cublas.h: bf16 products through NVIDIA's cuBLASLt, a library that need not be there: it is looked for and opened at
 * run time, in the system, a CUDA Toolkit or a Python environment's packages. */
#ifndef LANCE_CUDA_CUBLAS_H
#define LANCE_CUDA_CUBLAS_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cublas;

enum { CUBLAS_WORKSPACE_BYTES = 32 << 20 };

/* NULL when there is no usable library. The environment variable LANCED_CUBLASLT names the library's file instead of
 * the search, or, when it is empty, none. The current device is the one that will be used. */
struct cublas *cublas_open(void);
void cublas_close(struct cublas *cublas); /* NULL is allowed */

/* One product as in product.cuh; all pointers are the device's, matrices bf16, strides in elements. */
struct cublas_product {
    const void *left, *right;
    const void *bias; /* bf16 [columns] or NULL */
    void *out;
    int rows, columns, depth;
    int left_stride, right_stride, out_stride;
    bool add;
};

/* Free memory must not decide a result's bytes: without it a job fails, and nothing is done in another way. */
enum cublas_answer { CUBLAS_YES, CUBLAS_NO, CUBLAS_NO_MEMORY };

/* Whether the library does products of this shape. No: it never does, or it was refused. */
enum cublas_answer cublas_can(struct cublas *cublas, const struct cublas_product *product);

/* Enqueue one on `stream` (a cudaStream_t); `workspace` is CUBLAS_WORKSPACE_BYTES of device memory. Other than yes:
 * nothing was enqueued. */
enum cublas_answer cublas_multiply(struct cublas *cublas, const struct cublas_product *product, void *workspace,
                                   void *stream);

/* Never again ask the library for products of this shape, which it said it does and then did not. */
void cublas_refuse(struct cublas *cublas, const struct cublas_product *product);
int cublas_refused(const struct cublas *cublas); /* how many shapes were refused */

#ifdef __cplusplus
}
#endif

#endif
