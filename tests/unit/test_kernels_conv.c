/* Convolutions and the autoencoder's rearrangements of the CPU backend. */
#include "tests/unit/kernel_fixture.h"

struct shape {
    int in, out, kt, kh, kw;
    int frames, height, width, past;
    bool no_time_padding, upsample, bf16, add;
    bool after_others; /* the call comes after one that was cancelled, and one that sees no past */
    int st, sh, sw;
    int top, bottom, left, right;
};

struct sizes {
    int context, frames, rows, columns;
};

static struct sizes output_sizes(const struct shape *s)
{
    int scale = s->upsample ? 2 : 1;
    struct sizes z;
    z.context = s->no_time_padding ? (s->past < s->kt - 1 ? s->past : s->kt - 1) : s->kt - 1;
    z.frames = (z.context + s->frames - s->kt) / s->st + 1;
    z.rows = (s->height * scale + s->top + s->bottom - s->kh) / s->sh + 1;
    z.columns = (s->width * scale + s->left + s->right - s->kw) / s->sw + 1;
    return z;
}

/* Input value at frame (negative: past), row and column of the upsampled picture; 0 outside. */
static double input(const struct shape *s, const float *x, const float *past, int frame, int row, int column, int c)
{
    int scale = s->upsample ? 2 : 1;
    if (row < 0 || column < 0 || row >= s->height * scale || column >= s->width * scale || frame < -s->past)
        return 0.0;
    size_t at = (((size_t)(frame < 0 ? frame + s->past : frame) * (size_t)s->height + (size_t)(row / scale)) *
                 (size_t)s->width + (size_t)(column / scale)) * (size_t)s->in + (size_t)c;
    return (double)(frame < 0 ? past : x)[at];
}

/* The output in double precision; free() it. */
static double *reference(const struct shape *s, const float *x, const float *past, const float *weight,
                         const float *bias)
{
    struct sizes z = output_sizes(s);
    double *want = zero_doubles((size_t)(z.frames * z.rows * z.columns) * (size_t)s->out);
    size_t at = 0;
    for (int f = 0; f < z.frames; f++)
        for (int y = 0; y < z.rows; y++)
            for (int c = 0; c < z.columns; c++)
                for (int o = 0; o < s->out; o++, at++) {
                    double sum = (double)bias[o] + (s->add ? 0.25 : 0.0);
                    const float *tap = weight + (size_t)o * (size_t)(s->in * s->kt * s->kh * s->kw);
                    for (int i = 0; i < s->in; i++)
                        for (int t = 0; t < s->kt; t++)
                            for (int h = 0; h < s->kh; h++)
                                for (int w = 0; w < s->kw; w++, tap++)
                                    sum += (double)*tap * input(s, x, past, f * s->st + t - z.context,
                                                                y * s->sh + h - s->top, c * s->sw + w - s->left, i);
                    want[at] = sum;
                }
    return want;
}

/* A call that is cancelled before it begins, then one that needs the last time tap alone. */
static void call_otherwise(struct kernels *k, struct conv *conv, const struct conv_call *call, size_t results)
{
    const atomic_bool cancelled = true;
    struct error error;
    struct conv_call first_frame = *call;
    float *out = output_like(NULL, results);
    first_frame.past_frames = 0;
    first_frame.frames = 1;
    first_frame.out = (act *)out;
    k->watch(k, &cancelled);
    k->conv(k, conv, call);
    assert_int_equal(k->sync(k, &error), ERROR_CANCELLED);
    k->watch(k, NULL);
    k->conv(k, conv, &first_frame);
    assert_int_equal(k->sync(k, &error), 0);
    free(out);
}

static void check(const struct shape *s)
{
    struct sizes z = output_sizes(s);
    size_t plane = (size_t)s->height * (size_t)s->width * (size_t)s->in;
    size_t weights = (size_t)s->out * (size_t)s->in * (size_t)(s->kt * s->kh * s->kw);
    float *x = random_floats((size_t)s->frames * plane, 1.0f), *past = random_floats((size_t)s->past * plane, 1.0f);
    float *weight = random_floats(weights, 1.0f), *bias = random_floats((size_t)s->out, 1.0f);
    uint16_t *half = checked_alloc((weights + (size_t)s->out) * sizeof *half);
    if (s->bf16)
        for (size_t i = 0; i < weights + (size_t)s->out; i++) {
            float *value = i < weights ? &weight[i] : &bias[i - weights];
            half[i] = float_to_bf16(*value);
            *value = bf16_to_float(half[i]);
        }
    void *blocks[2];
    struct conv_source source = {.format = s->bf16 ? WEIGHT_BF16 : WEIGHT_F32, .out_channels = s->out,
                                 .in_channels = s->in, .kernel_t = s->kt, .kernel_h = s->kh, .kernel_w = s->kw};
    size_t size = s->bf16 ? 2 : 4;
    source.weight = unaligned_copy(s->bf16 ? (void *)half : (void *)weight, weights * size, &blocks[0]);
    source.bias = unaligned_copy(s->bf16 ? (void *)(half + weights) : (void *)bias, (size_t)s->out * size, &blocks[1]);

    struct results r = {.n = (size_t)(z.frames * z.rows * z.columns) * (size_t)s->out};
    double *want = reference(s, x, past, weight, bias);
    for (int which = 0; which < ROUNDED_BACKENDS; which++) {
        struct kernels *k = open_backend(which);
        struct conv *conv = NULL;
        struct error error;
        assert_int_equal(k->conv_open(k, &conv, &source, &error), 0);
        assert_true(k->memory_in_use(k) >= weights * (k->rounds ? sizeof(uint16_t) : sizeof(float)));
        r.of[which] = output_like(NULL, r.n);
        struct conv_call call = {.x = as_act(x), .past = as_act(past), .past_frames = s->past,
                                 .no_time_padding = s->no_time_padding, .frames = s->frames, .height = s->height,
                                 .width = s->width, .upsample2x = s->upsample, .stride_t = s->st, .stride_h = s->sh,
                                 .stride_w = s->sw, .pad_top = s->top, .pad_bottom = s->bottom, .pad_left = s->left,
                                 .pad_right = s->right, .add = s->add, .out = (act *)r.of[which]};
        if (s->after_others)
            call_otherwise(k, conv, &call, r.n);
        k->conv(k, conv, &call);
        assert_int_equal(k->sync(k, &error), 0);
        k->conv_close(k, conv);
        assert_int_equal(k->memory_in_use(k), 0);
        k->close(k);
    }
    check_results(&r, want, 2e-6);
    free(want), free(half), free(weight), free(bias), free(x), free(past), free(blocks[0]), free(blocks[1]);
}

static const struct shape cube = {.in = 24, .out = 40, .kt = 3, .kh = 3, .kw = 3, .frames = 1, .height = 7, .width = 9,
                                  .st = 1, .sh = 1, .sw = 1, .top = 1, .bottom = 1, .left = 1, .right = 1};

static void a_causal_cube_sees_past_frames_and_zeros_before_them(void **state)
{
    (void)state;
    for (int past = 0; past <= 3; past++)
        for (int frames = 1; frames <= 4; frames += 3) {
            struct shape s = cube;
            s.past = past;
            s.frames = frames;
            s.add = past == 1;
            s.bf16 = frames == 4;
            check(&s);
        }
}

static void weights_are_whole_after_a_cancelled_call_and_after_a_first_frame(void **state)
{
    (void)state;
    struct shape s = cube;
    s.past = 2;
    s.after_others = true;
    check(&s);
    s.bf16 = true;
    check(&s);
}

static void odd_channel_counts_are_right(void **state)
{
    (void)state;
    static const int channels[][2] = {{12, 16}, {3, 5}, {1, 1}, {48, 12}, {17, 33}, {300, 20}};
    for (size_t i = 0; i < sizeof channels / sizeof *channels; i++) {
        struct shape s = cube;
        s.in = channels[i][0];
        s.out = channels[i][1];
        s.frames = 2;
        check(&s);
    }
}

static void a_point_convolution_is_a_matrix_product(void **state)
{
    (void)state;
    struct shape s = {.in = 50, .out = 70, .kt = 1, .kh = 1, .kw = 1, .frames = 2, .height = 13, .width = 11, .st = 1,
                      .sh = 1, .sw = 1, .add = true};
    check(&s);
}

static void upsampling_doubles_the_picture_before_a_flat_convolution(void **state)
{
    (void)state;
    struct shape s = {.in = 20, .out = 18, .kt = 1, .kh = 3, .kw = 3, .frames = 3, .height = 5, .width = 6,
                      .upsample = true, .st = 1, .sh = 1, .sw = 1, .top = 1, .bottom = 1, .left = 1, .right = 1};
    check(&s);
}

static void strided_convolutions_pad_only_below_and_to_the_right(void **state)
{
    (void)state;
    struct shape s = {.in = 20, .out = 20, .kt = 1, .kh = 3, .kw = 3, .frames = 2, .height = 8, .width = 10, .st = 1,
                      .sh = 2, .sw = 2, .bottom = 1, .right = 1};
    check(&s);
}

static void temporal_stride_without_padding_convolves_the_frames_at_hand(void **state)
{
    (void)state;
    struct shape s = {.in = 20, .out = 20, .kt = 3, .kh = 1, .kw = 1, .frames = 4, .height = 4, .width = 5, .past = 1,
                      .no_time_padding = true, .st = 2, .sh = 1, .sw = 1};
    check(&s);
    s.past = 0;
    s.frames = 5;
    check(&s);
    s.past = 2;
    s.st = 1;
    check(&s);
}

static void pictures_wider_and_taller_than_any_patch_are_right(void **state)
{
    (void)state;
    struct shape s = cube;
    s.in = 9;
    s.out = 18;
    s.past = 2;
    s.height = 3;
    s.width = 300;
    check(&s);
    s.height = 67;
    s.width = 5;
    s.add = true;
    check(&s);
    struct shape strided = {.in = 9, .out = 18, .kt = 1, .kh = 3, .kw = 3, .frames = 1, .height = 10, .width = 290,
        .st = 1,
                            .sh = 2, .sw = 2, .bottom = 1, .right = 1};
    check(&strided);
}

static void a_convolution_without_weights_is_refused(void **state)
{
    (void)state;
    struct kernels *k = open_backend(0);
    struct conv *conv = NULL;
    struct error error;
    struct conv_source s = {.format = WEIGHT_F32, .out_channels = 1, .in_channels = 1, .kernel_t = 1, .kernel_h = 1,
                            .kernel_w = 1};
    assert_int_equal(k->conv_open(k, &conv, &s, &error), ERROR_BAD_FILE);
    s.weight = &s;
    s.format = WEIGHT_AWQ_INT4;
    assert_int_equal(k->conv_open(k, &conv, &s, &error), ERROR_BAD_FILE);
    assert_null(conv);
    k->close(k);
}

/* duplicate_up written as the official code does it: repeat, view as eight axes, permute, drop. */
static void duplicate_up_repeats_channels_into_time_and_space(void **state)
{
    (void)state;
    static const struct { int in, out, ft, fs, drop; } cases[] = {
        {8, 8, 2, 2, 1}, {8, 8, 2, 2, 0}, {16, 8, 1, 2, 0}, {16, 4, 2, 2, 1}, {6, 6, 1, 1, 0}};
    enum { FRAMES = 2, HEIGHT = 3, WIDTH = 4 };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int in = cases[i].in, out = cases[i].out, ft = cases[i].ft, fs = cases[i].fs, drop = cases[i].drop;
        int repeats = out * ft * fs * fs / in, rows = HEIGHT * fs, columns = WIDTH * fs;
        struct results r = {.n = (size_t)((FRAMES * ft - drop) * rows * columns * out)};
        float *x = random_floats((size_t)(FRAMES * HEIGHT * WIDTH * in), 1.0f);
        double *want = zero_doubles(r.n);
        for (int f = 0; f < FRAMES; f++)
            for (int h = 0; h < HEIGHT; h++)
                for (int w = 0; w < WIDTH; w++)
                    for (int e = 0; e < in * repeats; e++) {
                        int c = e / (ft * fs * fs), t = e / (fs * fs) % ft, row = e / fs % fs, column = e % fs;
                        int to = f * ft + t - drop;
                        if (to >= 0)
                            want[((to * rows + h * fs + row) * columns + w * fs + column) * out + c] =
                                0.25 + (double)x[((f * HEIGHT + h) * WIDTH + w) * in + e / repeats];
                    }
        for (int which = 0; which < BACKENDS; which++) {
            struct kernels *k = open_backend(which);
            r.of[which] = output_like(NULL, r.n);
            k->duplicate_up(k, as_act(x), FRAMES, HEIGHT, WIDTH, in, out, ft, fs, drop, (act *)r.of[which]);
            k->close(k);
        }
        check_results(&r, want, 1e-7);
        free(want);
        free(x);
    }
}

static void average_down_averages_groups_and_pads_time_in_front(void **state)
{
    (void)state;
    static const struct { int in, out, ft, fs, frames; } cases[] = {
        {8, 8, 2, 2, 4}, {8, 8, 2, 2, 1}, {8, 16, 1, 2, 3}, {4, 8, 2, 2, 3}, {6, 6, 1, 1, 2}, {160, 320, 2, 2, 1}};
    enum { HEIGHT = 4, WIDTH = 6 };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int in = cases[i].in, out = cases[i].out, ft = cases[i].ft, fs = cases[i].fs, frames = cases[i].frames;
        int out_frames = (frames + ft - 1) / ft, pad = out_frames * ft - frames, rows = HEIGHT / fs,
            columns = WIDTH / fs;
        int group = in * ft * fs * fs / out;
        struct results r = {.n = (size_t)(out_frames * rows * columns * out)};
        float *x = random_floats((size_t)(frames * HEIGHT * WIDTH * in), 1.0f);
        double *want = zero_doubles(r.n);
        for (size_t j = 0; j < r.n; j++)
            want[j] = 0.25;
        for (int f = 0; f < frames; f++)
            for (int h = 0; h < HEIGHT; h++)
                for (int w = 0; w < WIDTH; w++)
                    for (int c = 0; c < in; c++) {
                        int t = (f + pad) % ft;
                        int channel = (((c * ft + t) * fs + h % fs) * fs + w % fs) / group;
                        want[(((f + pad) / ft * rows + h / fs) * columns + w / fs) * out + channel] +=
                            (double)x[((f * HEIGHT + h) * WIDTH + w) * in + c] / group;
                    }
        for (int which = 0; which < BACKENDS; which++) {
            struct kernels *k = open_backend(which);
            r.of[which] = output_like(NULL, r.n);
            k->average_down(k, as_act(x), frames, HEIGHT, WIDTH, in, out, ft, fs, (act *)r.of[which]);
            k->close(k);
        }
        check_results(&r, want, 1e-6);
        free(want);
        free(x);
    }
}

static void split_frames_makes_two_frames_of_the_channel_halves(void **state)
{
    (void)state;
    enum { FRAMES = 3, PIXELS = 70, CHANNELS = 5 };
    float *x = random_floats(FRAMES * PIXELS * 2 * CHANNELS, 1.0f);
    struct kernels *k = open_backend(1);
    float *y = output_like(NULL, FRAMES * PIXELS * 2 * CHANNELS);
    k->split_frames(k, as_act(x), FRAMES, PIXELS, CHANNELS, (act *)y);
    for (int f = 0; f < FRAMES; f++)
        for (int p = 0; p < PIXELS; p++)
            for (int half = 0; half < 2; half++)
                assert_memory_equal(y + ((2 * f + half) * PIXELS + p) * CHANNELS,
                                    x + ((f * PIXELS + p) * 2 + half) * CHANNELS, CHANNELS * sizeof *y);
    k->close(k);
    free(x);
    free(y);
}

static void patches_order_colour_then_column_then_row_and_come_back(void **state)
{
    (void)state;
    enum { FRAMES = 2, HEIGHT = 3, WIDTH = 5, N = FRAMES * HEIGHT * WIDTH * 12 };
    float *pixels = random_floats(N, 1.0f), *patches = output_like(NULL, N), *back = output_like(NULL, N);
    struct kernels *k = open_backend(3);
    k->patchify(k, as_act(pixels), FRAMES, HEIGHT, WIDTH, (act *)patches);
    for (int f = 0; f < FRAMES; f++)
        for (int y = 0; y < 2 * HEIGHT; y++)
            for (int x = 0; x < 2 * WIDTH; x++)
                for (int c = 0; c < 3; c++) {
                    int at = ((f * HEIGHT + y / 2) * WIDTH + x / 2) * 12 + c * 4 + x % 2 * 2 + y % 2;
                    assert_true(patches[at] == pixels[((f * 2 * HEIGHT + y) * 2 * WIDTH + x) * 3 + c]);
                }
    k->unpatchify(k, as_act(patches), FRAMES, HEIGHT, WIDTH, (act *)back);
    assert_memory_equal(back, pixels, N * sizeof *back);
    k->close(k);
    free(pixels), free(patches), free(back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_causal_cube_sees_past_frames_and_zeros_before_them),
        cmocka_unit_test(weights_are_whole_after_a_cancelled_call_and_after_a_first_frame),
        cmocka_unit_test(odd_channel_counts_are_right),
        cmocka_unit_test(a_point_convolution_is_a_matrix_product),
        cmocka_unit_test(upsampling_doubles_the_picture_before_a_flat_convolution),
        cmocka_unit_test(strided_convolutions_pad_only_below_and_to_the_right),
        cmocka_unit_test(temporal_stride_without_padding_convolves_the_frames_at_hand),
        cmocka_unit_test(pictures_wider_and_taller_than_any_patch_are_right),
        cmocka_unit_test(a_convolution_without_weights_is_refused),
        cmocka_unit_test(duplicate_up_repeats_channels_into_time_and_space),
        cmocka_unit_test(average_down_averages_groups_and_pads_time_in_front),
        cmocka_unit_test(split_frames_makes_two_frames_of_the_channel_halves),
        cmocka_unit_test(patches_order_colour_then_column_then_row_and_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
