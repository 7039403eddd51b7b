/* emulated_mma.h: the functions of kernels/cuda/mma.cuh without a tensor core.
 *
 * Fragment layouts are those of the PTX ISA for mma.m16n8k16 (bf16) and ldmatrix, as mma.cuh describes them. Products
 * are summed in float32 in the order of k; a card may add in another order. */
#ifndef LANCE_EMULATED_MMA_H
#define LANCE_EMULATED_MMA_H

#include "cuda_runtime.h"

/* d += a b. */
void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

void load_matrices(uint32_t (&r)[4], const void *shared_row);
void load_matrices_transposed(uint32_t (&r)[4], const void *shared_row);

static inline void copy_async_16(void *shared, const void *global, bool valid)
{
    emulated_copy_async(shared, global, 16, valid);
}
static inline void copy_async_8(void *shared, const void *global, bool valid)
{
    emulated_copy_async(shared, global, 8, valid);
}
static inline void copy_async_commit()
{
    emulated_copy_async_commit();
}
template <int pending> void copy_async_wait()
{
    emulated_copy_async_wait(pending);
}

static inline float exp2_fast(float x)
{
    return exp2f(x);
}

static inline void prefetch(const void *) {}

static inline uint4 load_once(const uint4 *from)
{
    return *from;
}

#endif
