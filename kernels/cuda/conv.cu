/* conv.cu: causal 3-D convolution, channels last: its weights, and which kernel runs it.
 *
 * conv_open brings the checkpoint's weights [out, in, taps] to the card a few output channels at a time and turns them
 * there into bf16 [out, taps, in], so that what lies under one tap is contiguous on both sides of the product. Most
 * convolutions run on tensor cores (conv_product.cu). What is left is small or odd, and gets one thread per value. */
#include <limits.h>
#include <stdlib.h>

#include "kernels/cuda/act.cuh"
#include "kernels/cuda/conv_parts.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/operators.cuh"

struct conv {
    int out_channels, in_channels;
    int kernel_t, kernel_h, kernel_w;
    bf16 *weight; /* [out_channels, kernel_t, kernel_h, kernel_w, in_channels] */
    float *bias;  /* [out_channels] or NULL; in the memory of `weight` */
    size_t bytes; /* of device memory */
};

enum { THREADS = 256, REPACK_BYTES = 16 << 20, /* of the checkpoint's weights in scratch memory at a time */
       MOST_PIXELS = INT_MAX - 65536 };        /* of one call's output, or input */

/* ---- weights ---- */
static __device__ float value_of(float value)
{
    return value;
}
static __device__ float value_of(bf16 value)
{
    return __bfloat162float(value);
}

/* from [rows, in, taps] -> to [rows, taps, in]; n = rows * in * taps. */
template <typename T>
__global__ void __launch_bounds__(THREADS) repack_kernel(const T *from, size_t n, int in, int taps, bf16 *to)
{
    const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= n)
        return;
    const size_t row = i / (static_cast<size_t>(in) * taps);
    const int within = static_cast<int>(i % (static_cast<size_t>(in) * taps)), tap = within / in, channel = within % in;
    store_act(to + i, value_of(from[(row * in + channel) * taps + tap]));
}

template <typename T> __global__ void __launch_bounds__(THREADS) widen_kernel(const T *from, int n, float *to)
{
    const int i = static_cast<int>(blockIdx.x * THREADS + threadIdx.x);
    if (i < n)
        to[i] = value_of(from[i]);
}

/* Fills conv->weight and conv->bias from a source whose elements are of type T. Failures are noted. */
template <typename T> static void send_weights(struct cuda_state *state, struct conv *conv, const struct conv_source *s)
{
    const int taps = s->kernel_t * s->kernel_h * s->kernel_w;
    const size_t row = static_cast<size_t>(s->in_channels) * taps;
    const size_t most = REPACK_BYTES / (row * sizeof(T)) ? REPACK_BYTES / (row * sizeof(T)) : 1; /* rows at a time */
    const size_t rows = static_cast<size_t>(s->out_channels), at_once = rows < most ? rows : most;
    T *raw = static_cast<T *>(
        cuda_scratch(state, SCRATCH_TRANSFER, (at_once * row > rows ? at_once * row : rows) * sizeof(T)));
    if (!raw)
        return;
    for (size_t done = 0; done < rows; done += at_once) {
        const size_t n = (rows - done < at_once ? rows - done : at_once) * row;
        cuda_send(state, raw, static_cast<const char *>(s->weight) + done * row * sizeof(T), n * sizeof(T));
        LAUNCH(repack_kernel<T>, cuda_pieces(n, THREADS), THREADS, 0, state, raw, n, s->in_channels, taps,
               conv->weight + done * row);
    }
    if (s->bias) {
        cuda_send(state, raw, s->bias, rows * sizeof(T));
        LAUNCH(widen_kernel<T>, cuda_pieces(rows, THREADS), THREADS, 0, state, raw, s->out_channels, conv->bias);
    }
}

static void cuda_conv_close(struct kernels *k, struct conv *conv)
{
    if (!conv)
        return;
    cuda_weights_free(cuda_of(k), conv->weight, conv->bytes);
    free(conv);
}

static int cuda_conv_open(struct kernels *k, struct conv **out, const struct conv_source *s, struct error *error)
{
    *out = NULL;
    struct cuda_state *state = cuda_of(k);
    if (s->out_channels <= 0 || s->in_channels <= 0 || s->kernel_t <= 0 || s->kernel_h <= 0 || s->kernel_w <= 0 ||
        !s->weight)
        return error_set(error, ERROR_BAD_FILE, "convolution: it has no channels, no taps or no weights");
    if (s->format != WEIGHT_F32 && s->format != WEIGHT_BF16)
        return error_set(error, ERROR_BAD_FILE, "convolution: weights must be float32 or bf16");
    const double depth = static_cast<double>(s->in_channels) * s->kernel_t * s->kernel_h * s->kernel_w;
    if (depth > INT_MAX / 2)
        return error_set(error, ERROR_UNSUPPORTED,
                         "convolution: %d channels under %dx%dx%d taps are more than it can sum", s->in_channels,
                         s->kernel_t, s->kernel_h, s->kernel_w);
    struct conv *conv = static_cast<struct conv *>(calloc(1, sizeof *conv));
    if (!conv)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a convolution");
    conv->out_channels = s->out_channels;
    conv->in_channels = s->in_channels;
    conv->kernel_t = s->kernel_t;
    conv->kernel_h = s->kernel_h;
    conv->kernel_w = s->kernel_w;
    const size_t rows = static_cast<size_t>(s->out_channels);
    const size_t weight_bytes = (rows * static_cast<size_t>(depth) * sizeof(bf16) + 15) / 16 * 16;
    const size_t bytes = weight_bytes + (s->bias ? rows * sizeof(float) : 0);
    void *memory;
    int code = cuda_weights_alloc(state, &memory, bytes, "a convolution's weights", error);
    if (!code) {
        conv->weight = static_cast<bf16 *>(memory);
        conv->bytes = bytes;
        if (s->bias)
            conv->bias = reinterpret_cast<float *>(static_cast<char *>(memory) + weight_bytes);
        if (s->format == WEIGHT_F32)
            send_weights<float>(state, conv, s);
        else
            send_weights<bf16>(state, conv, s);
        code = cuda_finish(state, error);
    }
    if (code) {
        cuda_conv_close(k, conv);
        return code;
    }
    *out = conv;
    return 0;
}

/* ---- convolving ---- */
/* One thread per output value. */
__global__ void __launch_bounds__(THREADS) conv_each_kernel(const conv_problem p)
{
    const long long i = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= static_cast<long long>(p.pixels) * p.out_channels)
        return;
    const int pixel = static_cast<int>(i / p.out_channels), column = static_cast<int>(i % p.out_channels);
    const conv_corner corner = conv_corner_of(p, pixel);
    const bf16 *weight =
        p.weight + static_cast<long long>(column) * p.kernel_t * p.kernel_h * p.kernel_w * p.in_channels;
    float sum = 0.0f;
    for (int t = conv_first_tap(p, pixel); t < p.kernel_t; t++)
        for (int h = 0; h < p.kernel_h; h++)
            for (int w = 0; w < p.kernel_w; w++) {
                const bf16 *under = conv_under_tap(p, corner, t, h, w);
                const bf16 *factors = weight + ((t * p.kernel_h + h) * p.kernel_w + w) * p.in_channels;
                for (int c = 0; under && c < p.in_channels; c++)
                    sum += load_act(under + c) * load_act(factors + c);
            }
    if (p.bias)
        sum += p.bias[column];
    store_act(p.out + i, p.add ? load_act(p.out + i) + sum : sum);
}

static void cuda_conv(struct kernels *k, struct conv *c, const struct conv_call *call)
{
    struct cuda_state *state = cuda_of(k);
    if (!cuda_running(state))
        return;
    const int scale = call->upsample2x ? 2 : 1;
    struct conv_problem p = {};
    p.x = values_of(call->x);
    p.past = call->past_frames ? values_of(call->past) : p.x;
    p.weight = c->weight;
    p.bias = c->bias;
    p.out = values_of(call->out);
    p.in_channels = c->in_channels;
    p.out_channels = c->out_channels;
    p.kernel_t = c->kernel_t;
    p.kernel_h = c->kernel_h;
    p.kernel_w = c->kernel_w;
    p.height = call->height;
    p.width = call->width;
    p.seen_height = call->height * scale;
    p.seen_width = call->width * scale;
    p.upsampled = call->upsample2x;
    p.past_frames = call->past_frames;
    p.context = c->kernel_t - 1;
    if (call->no_time_padding && call->past_frames < p.context)
        p.context = call->past_frames;
    if (call->past_frames > p.context) { /* only the latest are within reach */
        p.past += static_cast<size_t>(call->past_frames - p.context) * static_cast<size_t>(call->height) *
                  static_cast<size_t>(call->width) * static_cast<size_t>(c->in_channels);
        p.past_frames = p.context;
    }
    p.stride_t = call->stride_t;
    p.stride_h = call->stride_h;
    p.stride_w = call->stride_w;
    p.pad_top = call->pad_top;
    p.pad_left = call->pad_left;
    p.add = call->add;
    const int seen_frames = p.context + call->frames;
    const int padded_height = p.seen_height + call->pad_top + call->pad_bottom;
    const int padded_width = p.seen_width + call->pad_left + call->pad_right;
    if (seen_frames < c->kernel_t || padded_height < c->kernel_h || padded_width < c->kernel_w)
        return;
    const int out_frames = (seen_frames - c->kernel_t) / call->stride_t + 1;
    p.out_height = (padded_height - c->kernel_h) / call->stride_h + 1;
    p.out_width = (padded_width - c->kernel_w) / call->stride_w + 1;
    const double pixels = static_cast<double>(out_frames) * p.out_height * p.out_width;
    if (pixels > MOST_PIXELS || static_cast<double>(call->frames) * call->height * call->width > MOST_PIXELS) {
        cuda_fail(state, ERROR_UNSUPPORTED, "convolution of %d frames of %dx%d: too many pixels for one call",
                  call->frames, call->width, call->height);
        return;
    }
    p.pixels = out_frames * p.out_height * p.out_width;
    if (conv_product_fits(&p))
        conv_product_run(state, &p);
    else
        LAUNCH(conv_each_kernel,
               cuda_pieces(static_cast<size_t>(p.pixels) * static_cast<size_t>(p.out_channels), THREADS), THREADS, 0,
               state, p);
}

void cuda_conv_fill(struct kernels *k)
{
    k->conv_open = cuda_conv_open;
    k->conv_close = cuda_conv_close;
    k->conv = cuda_conv;
}
