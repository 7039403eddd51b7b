/* resample.cu: the autoencoder's shortcuts and rearrangements, channels last, at memory speed.
 *
 * A block makes a piece of one output line (a row of pixels of one frame), so that only the line's number can be large
 * and the arithmetic within it is of 32 bits. A thread makes eight neighbouring channels
 * where that can be, else one. */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/operators.cuh"

enum { THREADS = 256, WIDE = 8 };

struct resample {
    const bf16 *x;
    int height, width;             /* of x */
    int in_channels, out_channels;
    int factor_t, factor_s;
    int skip;                      /* duplicate_up: output frames left out; average_down: zero frames in front of x */
    int columns;                   /* of an output line */
    int rows;                      /* of an output frame */
    int pieces;                    /* blocks that share a line */
    bf16 *y;
};

/* What a thread works on: `channels` of pixel `column` of line `line`. */
struct place {
    int line, column, channel;
    bool inside;
};

template <int CHANNELS> static __device__ place place_of(int pieces, int columns, int channels)
{
    const int line = static_cast<int>(blockIdx.x / static_cast<unsigned>(pieces));
    const int piece = static_cast<int>(blockIdx.x % static_cast<unsigned>(pieces));
    const int groups = channels / CHANNELS, at = piece * THREADS + static_cast<int>(threadIdx.x);
    return {line, at / groups, at % groups * CHANNELS, at < columns * groups};
}

/* y[0 .. CHANNELS) += values */
template <int CHANNELS> static __device__ void add_values(bf16 *y, const float (&values)[CHANNELS])
{
    if constexpr (CHANNELS == WIDE) {
        float sums[WIDE];
        load_act8(y, sums);
#pragma unroll
        for (int i = 0; i < WIDE; i++)
            sums[i] += values[i];
        store_act8(y, sums);
    } else {
        store_act(y, load_act(y) + values[0]);
    }
}

template <int CHANNELS> __global__ void __launch_bounds__(THREADS) duplicate_up_kernel(const resample r)
{
    const place at = place_of<CHANNELS>(r.pieces, r.columns, r.out_channels);
    if (!at.inside)
        return;
    const int fs = r.factor_s, parts = r.factor_t * fs * fs, repeats = r.out_channels * parts / r.in_channels;
    const int frame = at.line / r.rows + r.skip, row = at.line % r.rows;
    const int part = (frame % r.factor_t * fs + row % fs) * fs + at.column % fs;
    const long long pixel =
        (static_cast<long long>(frame / r.factor_t) * r.height + row / fs) * r.width + at.column / fs;
    const bf16 *x = r.x + pixel * r.in_channels;
    float values[CHANNELS];
#pragma unroll
    for (int i = 0; i < CHANNELS; i++)
        values[i] = load_act(x + ((at.channel + i) * parts + part) / repeats);
    add_values<CHANNELS>(r.y + (static_cast<long long>(at.line) * r.columns + at.column) * r.out_channels + at.channel,
                         values);
}

/* Output channel c is the mean of the group c of the channels that in_channels * factor_t * factor_s^2 make in the
 * order (channel, time, row, column). */
template <int CHANNELS> __global__ void __launch_bounds__(THREADS) average_down_kernel(const resample r)
{
    const place at = place_of<CHANNELS>(r.pieces, r.columns, r.out_channels);
    if (!at.inside)
        return;
    const int fs = r.factor_s, parts = r.factor_t * fs * fs, group = r.in_channels * parts / r.out_channels;
    const int frame = at.line / r.rows, row = at.line % r.rows;
    float values[CHANNELS];
#pragma unroll
    for (int i = 0; i < CHANNELS; i++) {
        float sum = 0.0f;
        for (int j = 0; j < group; j++) {
            const int part = (at.channel + i) * group + j, channel = part / parts;
            const int t = part / (fs * fs) % r.factor_t, h = part / fs % fs, w = part % fs;
            const int from = frame * r.factor_t + t - r.skip;
            if (from < 0)
                continue;
            const long long pixel =
                (static_cast<long long>(from) * r.height + row * fs + h) * r.width + at.column * fs + w;
            sum += load_act(r.x + pixel * r.in_channels + channel);
        }
        values[i] = sum / static_cast<float>(group);
    }
    add_values<CHANNELS>(r.y + (static_cast<long long>(at.line) * r.columns + at.column) * r.out_channels + at.channel,
                         values);
}

/* Sets the pieces of a line for threads that make eight channels, or one; returns whether it is eight. */
static bool cut_lines(struct resample *r)
{
    const bool wide = r->out_channels % WIDE == 0 && act_aligned(act_address(r->y));
    r->pieces = static_cast<int>(cuda_pieces(static_cast<size_t>(r->columns) * static_cast<size_t>(r->out_channels) /
                                                 (wide ? WIDE : 1), THREADS));
    return wide;
}

static void cuda_duplicate_up(struct kernels *k, const act *x, int frames, int height, int width, int in_channels,
                              int out_channels, int factor_t, int factor_s, int drop, act *y)
{
    struct resample r = {values_of(x), height, width, in_channels, out_channels, factor_t, factor_s, drop,
                         width * factor_s, height * factor_s, 0, values_of(y)};
    const int out_frames = frames * factor_t - drop;
    if (out_frames <= 0)
        return;
    const bool wide = cut_lines(&r);
    const unsigned grid =
        static_cast<unsigned>(out_frames) * static_cast<unsigned>(r.rows) * static_cast<unsigned>(r.pieces);
    if (wide)
        LAUNCH(duplicate_up_kernel<WIDE>, grid, THREADS, 0, cuda_of(k), r);
    else
        LAUNCH(duplicate_up_kernel<1>, grid, THREADS, 0, cuda_of(k), r);
}

static void cuda_average_down(struct kernels *k, const act *x, int frames, int height, int width, int in_channels,
                              int out_channels, int factor_t, int factor_s, act *y)
{
    const int padding = (factor_t - frames % factor_t) % factor_t;
    struct resample r = {values_of(x), height, width, in_channels, out_channels, factor_t, factor_s, padding,
                         width / factor_s, height / factor_s, 0, values_of(y)};
    const bool wide = cut_lines(&r);
    const unsigned grid = static_cast<unsigned>((frames + padding) / factor_t) * static_cast<unsigned>(r.rows) *
                          static_cast<unsigned>(r.pieces);
    if (wide)
        LAUNCH(average_down_kernel<WIDE>, grid, THREADS, 0, cuda_of(k), r);
    else
        LAUNCH(average_down_kernel<1>, grid, THREADS, 0, cuda_of(k), r);
}

/* ---- rearrangements ---- */
/* x [frame, pixel, half, channel] -> y [frame, half, pixel, channel]. T is one value, or eight of them;
 * n and `channels` count T. */
template <typename T>
__global__ void __launch_bounds__(THREADS) split_frames_kernel(const T *x, size_t n, size_t pixels, int channels, T *y)
{
    const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= n)
        return;
    const size_t half_pixel = i / channels, channel = i % channels;
    const size_t pixel = half_pixel / 2, half = half_pixel % 2, frame = pixel / pixels;
    y[((2 * frame + half) * pixels + pixel % pixels) * channels + channel] = x[i];
}

template <typename T>
static void split_frames(struct kernels *k, const act *x, int frames, size_t pixels, int channels, act *y)
{
    const size_t n = static_cast<size_t>(frames) * pixels * 2 * static_cast<size_t>(channels);
    LAUNCH(split_frames_kernel<T>, cuda_pieces(n, THREADS), THREADS, 0, cuda_of(k), reinterpret_cast<const T *>(x), n,
           pixels, channels, reinterpret_cast<T *>(y));
}

static void cuda_split_frames(struct kernels *k, const act *x, int frames, size_t pixels, int channels, act *y)
{
    if (frames <= 0)
        return;
    if (channels % WIDE == 0 && act_aligned(act_address(x) | act_address(y)))
        split_frames<uint4>(k, x, frames, pixels, channels / WIDE, y);
    else
        split_frames<bf16>(k, x, frames, pixels, channels, y);
}

enum { COLOURS = 3, PATCH = 2, PATCH_CHANNELS = COLOURS * PATCH * PATCH };

/* A thread moves one value; n = frames * height * width * PATCH_CHANNELS in patches. */
template <bool to_patches>
__global__ void __launch_bounds__(THREADS) patches_kernel(const bf16 *from, size_t n, int height, int width, bf16 *to)
{
    const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= n)
        return;
    const int channel = static_cast<int>(i % PATCH_CHANNELS);
    const size_t patch = i / PATCH_CHANNELS, line = patch / width, column = patch % width;
    const size_t frame = line / height, row = line % height;
    const int colour = channel / (PATCH * PATCH), w = channel / PATCH % PATCH, h = channel % PATCH;
    const size_t pixel = ((frame * height + row) * PATCH + h) * width * PATCH + column * PATCH + w;
    if (to_patches)
        to[i] = from[pixel * COLOURS + colour];
    else
        to[pixel * COLOURS + colour] = from[i];
}

template <bool to_patches>
static void rearrange(struct kernels *k, const act *from, int frames, int height, int width, act *to)
{
    const size_t n =
        static_cast<size_t>(frames) * static_cast<size_t>(height) * static_cast<size_t>(width) * PATCH_CHANNELS;
    LAUNCH(patches_kernel<to_patches>, cuda_pieces(n, THREADS), THREADS, 0, cuda_of(k), values_of(from), n, height,
           width, values_of(to));
}

static void cuda_patchify(struct kernels *k, const act *pixels, int frames, int height, int width, act *patches)
{
    rearrange<true>(k, pixels, frames, height, width, patches);
}

static void cuda_unpatchify(struct kernels *k, const act *patches, int frames, int height, int width, act *pixels)
{
    rearrange<false>(k, patches, frames, height, width, pixels);
}

void cuda_resample_fill(struct kernels *k)
{
    k->duplicate_up = cuda_duplicate_up;
    k->average_down = cuda_average_down;
    k->split_frames = cuda_split_frames;
    k->patchify = cuda_patchify;
    k->unpatchify = cuda_unpatchify;
}
