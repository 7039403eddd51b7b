/* mma.cuh: the tensor-core instructions and the asynchronous copies that feed them.
 *
 * This is the only file of the backend with assembly in it. Fragment layouts are those of the
 * PTX ISA for m16n8k16 with bf16 factors: lane 4*g + t of a warp (g = 0..7, t = 0..3) holds, as
 * pairs of neighbouring elements packed low half first,
 *   a[0] row g,   k 2t, 2t+1      a[2] row g,   k 2t+8, 2t+9        of the left factor [16, 16]
 *   a[1] row g+8, k 2t, 2t+1      a[3] row g+8, k 2t+8, 2t+9
 *   b[0] k 2t, 2t+1, column g     b[1] k 2t+8, 2t+9, column g       of the right factor [16, 8]
 *   d[0], d[1] row g, columns 2t, 2t+1    d[2], d[3] row g+8, the same columns    of the sum [16, 8]
 *
 * Under a plain C++ compiler (the tests' emulation of a device) the same functions come from the
 * emulation's header. */
#ifndef LANCE_CUDA_MMA_CUH
#define LANCE_CUDA_MMA_CUH

#include <cuda_runtime.h>
#include <stdint.h>

#ifdef __CUDACC__

/* d += a b, with float32 sums. All lanes must come here together: volatile keeps the compiler from moving it to where
 * only those are whose sums are stored. */
__device__ inline void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four 8x8 matrices of 16-bit elements from shared memory. Lane i gives the 16-byte aligned address of row i % 8 of
 * matrix i / 8; lane 4*g + t receives in r[m] the elements 2t, 2t+1 of row g of matrix m. */
__device__ inline void load_matrices(uint32_t (&r)[4], const void *shared_row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared_row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* The same, each matrix transposed: lane 4*g + t receives elements g of its rows 2t and 2t+1. */
__device__ inline void load_matrices_transposed(uint32_t (&r)[4], const void *shared_row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared_row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* Start copying 16 (8, 4) bytes to shared memory; both addresses are multiples of that size. When not `valid` nothing
 * is read (the address must still be one inside an allocation) and zeros are written. */
__device__ inline void copy_async_16(void *shared, const void *global, bool valid)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(at), "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}

__device__ inline void copy_async_8(void *shared, const void *global, bool valid)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;"
                 :
                 : "r"(at), "l"(global), "r"(valid ? 8 : 0)
                 : "memory");
}

/* The copies this thread started since the last commit become one group. */
__device__ inline void copy_async_commit()
{
    asm volatile("cp.async.commit_group;" : : : "memory");
}

/* Wait until at most `pending` of this thread's youngest groups are unfinished. A barrier must follow before other
 * threads read what was copied. */
template <int pending> __device__ inline void copy_async_wait()
{
    asm volatile("cp.async.wait_group %0;" : : "n"(pending) : "memory");
}

/* 2^x to about float32 precision; 2^-infinity is 0, results that are not normal numbers become 0. */
__device__ inline float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 16 bytes that nobody reads again: they should not push others out of the caches. */
__device__ inline uint4 load_once(const uint4 *from)
{
    return __ldcs(from);
}

/* Have what lies there come nearer, for a load that follows: nothing waits for it. */
__device__ inline void prefetch(const void *from)
{
    asm volatile("prefetch.global.L2 [%0];" : : "l"(from));
}

#else
#include "emulated_mma.h"
#endif

/* Where element `k` of row `row` lies in a tile of shared memory that load_matrices reads: rows of TILE_DEPTH bf16,
 * their 16-byte pieces permuted. Neither copies of whole rows, 16 bytes a lane, nor eight rows of a matrix meet in a
 * bank. */
enum { TILE_DEPTH = 32 };
__device__ inline int tile_place(int row, int k)
{
    return row * TILE_DEPTH + (((k / 8) ^ (row / 2 % 4)) * 8) + k % 8;
}

#endif
