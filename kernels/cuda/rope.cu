/* rope.cu: RMS norm per head and rotary positions, in one pass over queries or keys, in place.
 *
 * A warp takes one head of one row: the values of a lane in the first half of the head and those they are
 * rotated with in the second. */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/operators.cuh"
#include "kernels/cuda/warp.cuh"

enum { WARPS = 8, THREADS = WARPS * WARP };

/* One or two neighbouring values at a time. */
template <bool paired> __device__ inline float2 load_some(const bf16 *from)
{
    return paired ? load_act2(from) : make_float2(load_act(from), 0.0f);
}

template <bool paired> __device__ inline void store_some(bf16 *to, float first, float second)
{
    if (paired)
        store_act2(to, first, second);
    else
        store_act(to, first);
}

/* `paired`: half is even, and so is every element's distance from an address that is a multiple of 4. */
template <bool paired>
__global__ void __launch_bounds__(THREADS) head_norm_rope_kernel(bf16 *values, size_t rows, size_t stride, int heads,
                                                                 int half, const float *weight, float eps,
                                                                 const float *cosines, const float *sines)
{
    enum { TAKEN = paired ? 2 : 1 };
    const unsigned unit = blockIdx.x * WARPS + threadIdx.x / WARP; /* 32 bits divide in a fraction of what 64 take */
    const size_t row = unit / static_cast<unsigned>(heads), head = unit % static_cast<unsigned>(heads);
    if (row >= rows)
        return;
    bf16 *x = values + row * stride + head * 2 * static_cast<size_t>(half);
    const float *cosine = cosines + row * static_cast<size_t>(half), *sine = sines + row * static_cast<size_t>(half);
    const int first = static_cast<int>(threadIdx.x % WARP) * TAKEN;
    float factor = 1.0f;
    if (weight) {
        float sum = 0.0f;
        for (int i = first; i < half; i += WARP * TAKEN) {
            const float2 a = load_some<paired>(x + i), b = load_some<paired>(x + half + i);
            sum += a.x * a.x + a.y * a.y + b.x * b.x + b.y * b.y;
        }
        factor = 1.0f / sqrtf(warp_sum(sum) / static_cast<float>(2 * half) + eps);
    }
    for (int i = first; i < half; i += WARP * TAKEN) {
        const float2 a = load_some<paired>(x + i), b = load_some<paired>(x + half + i);
        const float left[2] = {a.x, a.y}, right[2] = {b.x, b.y};
        float to_left[2] = {}, to_right[2] = {};
#pragma unroll
        for (int j = 0; j < TAKEN; j++) {
            const float p = left[j] * factor * (weight ? weight[i + j] : 1.0f);
            const float q = right[j] * factor * (weight ? weight[half + i + j] : 1.0f);
            to_left[j] = p * cosine[i + j] - q * sine[i + j];
            to_right[j] = q * cosine[i + j] + p * sine[i + j];
        }
        store_some<paired>(x + i, to_left[0], to_left[1]);
        store_some<paired>(x + half + i, to_right[0], to_right[1]);
    }
}

static void cuda_head_norm_rope(struct kernels *k, act *x_memory, int rows, int stride, int heads, int head_dim,
                                const param *weight, float eps, const param *cosines, const param *sines)
{
    struct cuda_state *state = cuda_of(k);
    bf16 *x = values_of(x_memory);
    const int half = head_dim / 2;
    if (rows <= 0 || heads <= 0 || half <= 0)
        return;
    const size_t units = static_cast<size_t>(rows) * static_cast<size_t>(heads);
    const unsigned blocks = cuda_pieces(units, WARPS);
    const size_t row_count = static_cast<size_t>(rows), row_stride = static_cast<size_t>(stride);
    if (half % 2 == 0 && stride % 2 == 0 && act_address(x) % 4 == 0)
        LAUNCH(head_norm_rope_kernel<true>, blocks, THREADS, 0, state, x, row_count, row_stride, heads, half,
               values_of(weight), eps, values_of(cosines), values_of(sines));
    else
        LAUNCH(head_norm_rope_kernel<false>, blocks, THREADS, 0, state, x, row_count, row_stride, heads, half,
               values_of(weight), eps, values_of(cosines), values_of(sines));
}

void cuda_rope_fill(struct kernels *k)
{
    k->head_norm_rope = cuda_head_norm_rope;
}
