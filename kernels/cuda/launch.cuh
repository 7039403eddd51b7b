/* launch.cuh: starting a kernel.
 *
 *     LAUNCH(kernel, grid, block, shared_bytes, state, arguments...);
 *     LAUNCH((kernel<8, true>), grid, block, 0, state, arguments...);    brackets around a comma
 *     LAUNCH_ON(stream, kernel, ...)                                     on another stream than state->compute
 *
 * A launch that fails is noted in the state; after a failure or a cancellation, and with an empty grid, nothing is
 * launched. Dynamic shared memory past 48 KiB is asked for. In a kernel,
 *
 *     DYNAMIC_SHARED(float, tile);                                       float *tile, 16-byte aligned (128 under nvcc)
 *
 * is that memory. Compiled by a plain C++ compiler (CUDA_EMULATION), launches go to tests/cuda_emulation.
 */
#ifndef LANCE_CUDA_LAUNCH_CUH
#define LANCE_CUDA_LAUNCH_CUH

#include <tuple>

#include "kernels/cuda/graph.cuh"

#ifdef CUDA_EMULATION
#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(emulated_dynamic_shared())
#else
extern __shared__ __align__(128) unsigned char cuda_dynamic_shared[];
#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(cuda_dynamic_shared)
#endif

template <typename... Parameters, typename... Arguments>
void cuda_launch(struct cuda_state *state, cudaStream_t stream, const char *name, void (*kernel)(Parameters...),
                 dim3 grid, dim3 block, size_t shared_bytes, Arguments... arguments)
{
    if (!cuda_running(state) || !grid.x || !grid.y || !grid.z)
        return;
#ifdef CUDA_EMULATION
    emulated_kernel(name, kernel);
#endif
    std::tuple<Parameters...> values(static_cast<Parameters>(arguments)...);
    std::apply([&](Parameters &...value) {
        void *parts[] = {&value...};
        const size_t sizes[] = {sizeof value...};
        const struct cuda_call call = {
            name,  reinterpret_cast<const void *>(kernel), grid, block, shared_bytes, stream, parts,
            sizes, static_cast<int>(sizeof...(Parameters))};
        cuda_enqueue(state, &call);
    }, values);
}

#define LAUNCH_ON(stream, kernel, grid, block, shared_bytes, state, ...) \
    cuda_launch(state, stream, #kernel, kernel, grid, block, shared_bytes, __VA_ARGS__)
#define LAUNCH(kernel, grid, block, shared_bytes, state, ...) \
    LAUNCH_ON((state)->compute, kernel, grid, block, shared_bytes, state, __VA_ARGS__)

#endif
