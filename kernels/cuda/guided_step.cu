/* guided_step.cu: guidance, its rescaling and the sampler's Euler step, fused; see struct guided_step in kernels.h.
 *
 * With RENORM_GLOBAL a first kernel leaves the squares of both norms, cut into pieces; every block of the second adds
 * the pieces in the same order. With RENORM_CHANNEL a warp does a row from norm to step. Latents are float32. */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/operators.cuh"
#include "kernels/cuda/warp.cuh"

enum { WARPS = 8, THREADS = WARPS * WARP, PIECES_MAX = THREADS };

/* The step as the kernels see it. */
struct step {
    float *x;
    const bf16 *cond, *uncond; /* uncond NULL: no guidance */
    size_t n, first;           /* values in all, and before the first that moves */
    float guidance_scale, renorm_min, dt;
    float *v_out;              /* or NULL */

    __device__ float velocity(size_t i) const
    {
        const float c = load_act(cond + i);
        if (!uncond)
            return c;
        const float u = load_act(uncond + i);
        return u + guidance_scale * (c - u);
    }
    __device__ void move(size_t i, float v) const
    {
        if (v_out)
            v_out[i] = v;
        if (i >= first)
            x[i] -= v * dt;
    }
    /* From the squares of |c| and |w|. */
    __device__ float rescaling(float cond_square, float combined_square) const
    {
        return fminf(fmaxf(sqrtf(cond_square) / (sqrtf(combined_square) + 1e-8f), renorm_min), 1.0f);
    }
};

/* partials[block] = squares of |c| and |w| over every gridDim.x-th run of THREADS values. */
__global__ void __launch_bounds__(THREADS) guidance_norms_kernel(struct step s, double2 *partials)
{
    __shared__ double sums[WARP];
    double cond = 0.0, combined = 0.0;
    for (size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; i < s.n;
         i += static_cast<size_t>(gridDim.x) * THREADS) {
        const float c = load_act(s.cond + i), w = s.velocity(i);
        cond += static_cast<double>(c) * static_cast<double>(c);
        combined += static_cast<double>(w) * static_cast<double>(w);
    }
    cond = block_sum(cond, sums);
    combined = block_sum(combined, sums);
    if (threadIdx.x == 0)
        partials[blockIdx.x] = make_double2(cond, combined);
}

/* `pieces` partials, at most THREADS; 0: no rescaling. */
__global__ void __launch_bounds__(THREADS) step_kernel(struct step s, const double2 *partials, int pieces)
{
    __shared__ double sums[WARP];
    float scale = 1.0f;
    if (pieces) {
        const bool mine = static_cast<int>(threadIdx.x) < pieces;
        const double cond = block_sum(mine ? partials[threadIdx.x].x : 0.0, sums);
        const double combined = block_sum(mine ? partials[threadIdx.x].y : 0.0, sums);
        scale = s.rescaling(static_cast<float>(cond), static_cast<float>(combined));
    }
    const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i < s.n)
        s.move(i, s.velocity(i) * scale);
}

/* A warp for each row of `width` values. */
__global__ void __launch_bounds__(THREADS) step_by_row_kernel(struct step s, size_t width)
{
    const size_t start = (static_cast<size_t>(blockIdx.x) * WARPS + threadIdx.x / WARP) * width;
    if (start >= s.n)
        return;
    float cond = 0.0f, combined = 0.0f;
    for (size_t i = start + threadIdx.x % WARP; i < start + width; i += WARP) {
        const float c = load_act(s.cond + i), w = s.velocity(i);
        cond = fmaf(c, c, cond);
        combined = fmaf(w, w, combined);
    }
    cond = warp_sum(cond);
    combined = warp_sum(combined);
    const float scale = s.rescaling(cond, combined);
    for (size_t i = start + threadIdx.x % WARP; i < start + width; i += WARP)
        s.move(i, s.velocity(i) * scale);
}

static void cuda_guided_step(struct kernels *k, const struct guided_step *call)
{
    struct cuda_state *state = cuda_of(k);
    if (call->rows <= 0 || call->width <= 0)
        return;
    const size_t width = static_cast<size_t>(call->width);
    struct step s = {};
    s.x = values_of(call->x);
    s.cond = values_of(call->v_cond);
    s.uncond = values_of(call->v_uncond);
    s.n = static_cast<size_t>(call->rows) * width;
    s.first = static_cast<size_t>(call->first_row) * width;
    s.guidance_scale = call->guidance_scale;
    s.renorm_min = call->renorm_min;
    s.dt = call->dt;
    s.v_out = values_of(call->v_out);
    if (s.uncond && call->renorm == RENORM_CHANNEL) {
        LAUNCH(step_by_row_kernel, cuda_pieces(static_cast<size_t>(call->rows), WARPS), THREADS, 0, state, s, width);
        return;
    }
    double2 *partials = NULL;
    unsigned pieces = 0;
    if (s.uncond && call->renorm == RENORM_GLOBAL) {
        pieces = cuda_pieces(s.n, THREADS);
        pieces = pieces < PIECES_MAX ? pieces : static_cast<unsigned>(PIECES_MAX);
        partials = static_cast<double2 *>(cuda_scratch(state, SCRATCH_PARTIALS, pieces * sizeof *partials));
        if (!partials)
            return;
        LAUNCH(guidance_norms_kernel, pieces, THREADS, 0, state, s, partials);
    }
    LAUNCH(step_kernel, cuda_pieces(s.n, THREADS), THREADS, 0, state, s, partials, static_cast<int>(pieces));
}

void cuda_guided_step_fill(struct kernels *k)
{
    k->guided_step = cuda_guided_step;
}
