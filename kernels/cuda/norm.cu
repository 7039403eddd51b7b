/* norm.cu: norms over the last axis: rms_norm of the language model and the ViT, channel_norm of the VAE.
 *
 * A narrow row belongs to one warp, a wide one to a whole block. The row is read twice, the second time from the cache:
 * once for the sum of its squares, once to be scaled. In place allowed: nothing is written before the sum is known. */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/operators.cuh"
#include "kernels/cuda/row_norm.cuh"

enum { WARPS = NORM_WARPS, THREADS = WARPS * WARP, WIDE = NORM_WIDE };

/* What a row's sum of squares turns into, and each scaled value. */
struct row_norm {
    bool over_channels; /* channel_norm; else rms_norm */
    bool with_silu;
    float eps;

    __device__ float factor(float sum, int width) const
    {
        return over_channels ? sqrtf(static_cast<float>(width)) / fmaxf(sqrtf(sum), 1e-12f)
                             : rms_factor(sum, width, eps);
    }
    __device__ float finish(float value) const
    {
        return with_silu ? silu(value) : value;
    }
};

/* `wide`: rows and weight begin on 16 bytes and width is a multiple of 8. */
template <int warps_per_row, bool wide>
__global__ void __launch_bounds__(THREADS) norm_kernel(struct row_norm norm, const bf16 *x, size_t rows, int width,
                                                       const float *weight, bf16 *y)
{
    __shared__ float sums[WARP];
    const size_t row = static_cast<size_t>(blockIdx.x) * (WARPS / warps_per_row) + threadIdx.x / (warps_per_row * WARP);
    if (row >= rows)
        return; /* a whole warp, or a whole block */
    const int lane = static_cast<int>(threadIdx.x) % (warps_per_row * WARP), step = warps_per_row * WARP;
    const size_t at = row * static_cast<size_t>(width);
    float sum = 0.0f;
    if (wide) {
        sum = squares_of_thread(x + at, lane * WIDE, step * WIDE, width);
    } else {
        for (int i = lane; i < width; i += step) {
            const float v = load_act(x + at + i);
            sum = fmaf(v, v, sum);
        }
    }
    const float factor = norm.factor(warps_per_row == 1 ? warp_sum(sum) : block_sum(sum, sums), width);
    if (wide) {
        for (int i = lane * WIDE; i < width; i += step * WIDE) {
            float v[WIDE], w[WIDE];
            load_act8(x + at + i, v);
            load_weights8(weight + i, w);
#pragma unroll
            for (int j = 0; j < WIDE; j++)
                v[j] = norm.finish(v[j] * factor * w[j]);
            store_act8(y + at + i, v);
        }
    } else {
        for (int i = lane; i < width; i += step)
            store_act(y + at + i, norm.finish(load_act(x + at + i) * factor * weight[i]));
    }
}

static void normalise(struct kernels *k, struct row_norm norm, const act *x_memory, size_t rows, int width,
                      const param *weight_memory, act *y_memory)
{
    struct cuda_state *state = cuda_of(k);
    const bf16 *x = values_of(x_memory);
    const float *weight = values_of(weight_memory);
    bf16 *y = values_of(y_memory);
    if (!rows || width <= 0)
        return;
    const bool wide = width % WIDE == 0 && act_aligned(act_address(x) | act_address(y) | act_address(weight));
    if (width <= NORM_NARROW_WIDTH) {
        const unsigned blocks = cuda_pieces(rows, WARPS);
        if (wide)
            LAUNCH((norm_kernel<1, true>), blocks, THREADS, 0, state, norm, x, rows, width, weight, y);
        else
            LAUNCH((norm_kernel<1, false>), blocks, THREADS, 0, state, norm, x, rows, width, weight, y);
    } else {
        const unsigned blocks = static_cast<unsigned>(rows);
        if (wide)
            LAUNCH((norm_kernel<WARPS, true>), blocks, THREADS, 0, state, norm, x, rows, width, weight, y);
        else
            LAUNCH((norm_kernel<WARPS, false>), blocks, THREADS, 0, state, norm, x, rows, width, weight, y);
    }
}

static void cuda_rms_norm(struct kernels *k, const act *x, int rows, int width, const param *weight, float eps, act *y)
{
    if (rows > 0)
        normalise(k, row_norm{false, false, eps}, x, static_cast<size_t>(rows), width, weight, y);
}

static void cuda_channel_norm(struct kernels *k, const act *x, size_t pixels, int channels, const param *gamma,
                              bool with_silu, act *y)
{
    normalise(k, row_norm{true, with_silu, 0.0f}, x, pixels, channels, gamma, y);
}

void cuda_norm_fill(struct kernels *k)
{
    k->rms_norm = cuda_rms_norm;
    k->channel_norm = cuda_channel_norm;
}
