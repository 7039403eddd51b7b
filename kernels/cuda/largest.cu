/* largest.cu: where the largest of some values is, so that a token that is not drawn costs 4 bytes on the way to the
 * host instead of a whole vocabulary's logits.
 *
 * One block: the values are few (300 KB), and a second launch would cost as much as their reading. */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/operators.cuh"
#include "kernels/cuda/warp.cuh"

#include <math.h>

enum { WARPS = 32, THREADS = WARPS * WARP, WIDE = 8 };

/* A value and where it stands; index -1: none yet. */
struct place {
    float value;
    int index;
};

__device__ inline struct place larger(struct place a, struct place b)
{
    const bool b_wins = b.index >= 0 && (a.index < 0 || b.value > a.value || (b.value == a.value && b.index < a.index));
    return b_wins ? b : a;
}

__device__ inline struct place largest_of_warp(struct place mine)
{
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        const struct place other = {__shfl_xor_sync(ALL_LANES, mine.value, distance),
                                    __shfl_xor_sync(ALL_LANES, mine.index, distance)};
        mine = larger(mine, other);
    }
    return mine;
}

/* *index: see kernels.h. `wide`: x begins on 16 bytes. */
template <bool wide>
__global__ void __launch_bounds__(THREADS) largest_kernel(const bf16 *x, int choices, int n, int32_t *index)
{
    __shared__ struct place of_warp[WARPS];
    __shared__ int bad_of_warp[WARPS];
    const int warp = static_cast<int>(threadIdx.x) / WARP, lane = static_cast<int>(threadIdx.x) % WARP;
    struct place best = {0.0f, -1};
    int bad = 0;
    auto take = [&](float value, int at) {
        bad += isfinite(value) ? 0 : 1;
        if (at < choices)
            best = larger(best, {value, at});
    };
    const int whole = wide ? n / WIDE * WIDE : 0;
    for (int i = static_cast<int>(threadIdx.x) * WIDE; i < whole; i += THREADS * WIDE) {
        float values[WIDE];
        load_act8(x + i, values);
#pragma unroll
        for (int j = 0; j < WIDE; j++)
            take(values[j], i + j);
    }
    for (int i = whole + static_cast<int>(threadIdx.x); i < n; i += THREADS)
        take(load_act(x + i), i);
    best = largest_of_warp(best);
    bad = warp_sum(bad);
    if (lane == 0) {
        of_warp[warp] = best;
        bad_of_warp[warp] = bad;
    }
    __syncthreads();
    if (warp > 0)
        return;
    best = largest_of_warp(of_warp[lane]);
    bad = warp_sum(bad_of_warp[lane]);
    if (lane == 0)
        *index = bad ? -1 : best.index;
}

static int32_t cuda_largest(struct kernels *k, const act *x_memory, int choices, int n)
{
    struct cuda_state *state = cuda_of(k);
    const bf16 *x = values_of(x_memory);
    int32_t *found = cuda_running(state) ? static_cast<int32_t *>(cuda_scratch(state, SCRATCH_INDEXES, sizeof *found))
                                         : NULL;
    int32_t index = -1;
    if (!found)
        return index;
    if (act_aligned(act_address(x)))
        LAUNCH(largest_kernel<true>, 1, THREADS, 0, state, x, choices, n, found);
    else
        LAUNCH(largest_kernel<false>, 1, THREADS, 0, state, x, choices, n, found);
    cuda_fetch(state, &index, found, sizeof index);
    return index;
}

void cuda_largest_fill(struct kernels *k)
{
    k->largest = cuda_largest;
}
