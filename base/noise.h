/* noise.h: PyTorch's normal random streams: the CPU's bit for bit, the GPU's as far as
 * the arithmetic of a card is known (see noise.c).
 *
 * Pure functions of the seed; no state, any thread.
 */
#ifndef LANCE_NOISE_H
#define LANCE_NOISE_H

#include <stddef.h>
#include <stdint.h>

/* torch.randn(n, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32), contiguous. */
void noise_torch_cpu(uint64_t seed, float *out, size_t n);

/* torch.randn(n, generator=torch.Generator("cuda").manual_seed(seed), device="cuda", dtype=float32): Philox4x32-10
 * with the launch geometry PyTorch uses. The geometry depends on the card through the number of multiprocessors and
 * threads per multiprocessor, so these are parameters (see the .c file for the cards' values). */
void noise_torch_cuda(uint64_t seed, int multiprocessors, int threads_per_multiprocessor, float *out, size_t n);

/* One block of the Philox4x32-10 counter-based generator (Salmon and others 2011), the
 * integers under the CUDA stream. */
void noise_philox4x32_10(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
