/* Convolutions of the CUDA backend, against those of the CPU backend. */
#include "cuda_fixture.h"

struct shape {
    int in, out, kt, kh, kw;
    int frames, height, width, past;
    bool no_time_padding, upsample, bf16, add, no_bias;
    int st, sh, sw;
    int top, bottom, left, right;
};

static size_t input_elements(const struct shape *s, int frames)
{
    return (size_t)frames * (size_t)s->height * (size_t)s->width * (size_t)s->in;
}

static size_t output_elements(const struct shape *s)
{
    int scale = s->upsample ? 2 : 1;
    int context = s->no_time_padding && s->past < s->kt - 1 ? s->past : s->kt - 1;
    int frames = (context + s->frames - s->kt) / s->st + 1;
    int rows = (s->height * scale + s->top + s->bottom - s->kh) / s->sh + 1;
    int columns = (s->width * scale + s->left + s->right - s->kw) / s->sw + 1;
    return (size_t)frames * (size_t)rows * (size_t)columns * (size_t)s->out;
}

static struct conv_call call_of(const struct shape *s, const act *x, const act *past, act *out)
{
    return (struct conv_call){.x = x, .past = past, .past_frames = s->past, .no_time_padding = s->no_time_padding,
                              .frames = s->frames, .height = s->height, .width = s->width, .upsample2x = s->upsample,
                              .stride_t = s->st, .stride_h = s->sh, .stride_w = s->sw, .pad_top = s->top,
                              .pad_bottom = s->bottom, .pad_left = s->left, .pad_right = s->right, .add = s->add,
                              .out = out};
}

/* The source's weights lie at odd addresses, as in a mapped file; all values are bf16 ones, so that both backends have
 * the same factors. */
struct weights {
    struct conv_source source;
    void *blocks[2];
};

static struct weights random_weights(const struct shape *s)
{
    size_t n = (size_t)s->out * (size_t)s->in * (size_t)(s->kt * s->kh * s->kw), outs = (size_t)s->out;
    float *values = random_bf16(n + outs, 1.0f);
    uint16_t *halves = checked_alloc((n + outs) * sizeof *halves);
    for (size_t i = 0; i < n + outs; i++)
        halves[i] = float_to_bf16(values[i]);
    struct weights w = {.source = {.format = s->bf16 ? WEIGHT_BF16 : WEIGHT_F32, .out_channels = s->out,
                                   .in_channels = s->in, .kernel_t = s->kt, .kernel_h = s->kh, .kernel_w = s->kw}};
    size_t size = s->bf16 ? sizeof *halves : sizeof *values;
    const char *from = s->bf16 ? (const char *)halves : (const char *)values;
    w.source.weight = unaligned_copy(from, n * size, &w.blocks[0]);
    const void *bias = unaligned_copy(from + n * size, outs * size, &w.blocks[1]);
    w.source.bias = s->no_bias ? NULL : bias;
    free(values);
    free(halves);
    return w;
}

/* The result on one backend; `out` starts as `old`. */
static float *convolve(struct kernels *k, const struct shape *s, const struct conv_source *source, const float *x,
                       const float *past, const float *old)
{
    size_t n = output_elements(s);
    struct error error;
    struct conv *conv = NULL;
    assert_int_equal(k->conv_open(k, &conv, source, &error), 0);
    assert_true(k->memory_in_use(k) > 0);
    act *device_x = act_with(k, x, input_elements(s, s->frames));
    act *device_past = s->past ? act_with(k, past, input_elements(s, s->past)) : NULL;
    act *device_out = act_with(k, old, n);
    struct conv_call call = call_of(s, device_x, device_past, device_out);
    k->conv(k, conv, &call);
    float *out = values_of_act(k, device_out, n);
    k->conv_close(k, conv);
    k->memory_free(k, device_x);
    k->memory_free(k, device_past);
    k->memory_free(k, device_out);
    return out;
}

/* Both backends sum the same products in float32; the order differs, and the card's result is rounded to bf16 once. The
 * factors are at most 1, so that another order moves a sum of `depth` products by far less than depth * 2^-22. */
static void check(struct pair *p, const struct shape *s)
{
    size_t n = output_elements(s);
    struct weights w = random_weights(s);
    float *x = random_bf16(input_elements(s, s->frames), 1.0f), *past = random_bf16(input_elements(s, s->past), 1.0f);
    float *old = random_bf16(n, 1.0f);
    float *want = convolve(p->cpu, s, &w.source, x, past, old), *got = convolve(p->cuda, s, &w.source, x, past, old);
    const double slack = ldexp(s->in * s->kt * s->kh * s->kw, -22);
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= BF16_ROUNDING * fabs((double)want[i]) + slack))
            fail_msg("value %zu of %zu is %g, not %g", i, n, (double)got[i], (double)want[i]);
    free(want), free(got), free(x), free(past), free(old), free(w.blocks[0]), free(w.blocks[1]);
}

static const struct shape cube = {.in = 24, .out = 40, .kt = 3, .kh = 3, .kw = 3, .frames = 1, .height = 7, .width = 9,
                                  .st = 1, .sh = 1, .sw = 1, .top = 1, .bottom = 1, .left = 1, .right = 1};

static void a_causal_cube_sees_past_frames_and_zeros_before_them(void **state)
{
    struct pair *p = *state;
    for (int past = 0; past <= 3; past++)
        for (int frames = 1; frames <= 3; frames += 2) {
            struct shape s = cube;
            s.past = past;
            s.frames = frames;
            s.add = past == 1;
            s.bf16 = frames == 3;
            check(p, &s);
        }
}

static void any_channel_counts_are_right(void **state)
{
    struct pair *p = *state;
    static const int channels[][2] = {{12, 16}, {3, 5},   {1, 1},   {48, 12}, {17, 33}, {12, 7},  {4, 9},
                                      {20, 40}, {8, 130}, {12, 70}, {40, 65}, {36, 18}, {100, 16}, {8, 8}};
    for (size_t i = 0; i < sizeof channels / sizeof *channels; i++) {
        struct shape s = cube;
        s.in = channels[i][0];
        s.out = channels[i][1];
        s.frames = 2;
        s.height = 4;
        s.no_bias = i % 3 == 1;
        s.add = i % 2 == 1;
        check(p, &s);
    }
}

static void many_pixels_and_wide_channels_take_several_tiles(void **state)
{
    struct pair *p = *state;
    struct shape s = cube;
    s.in = 32;
    s.out = 128;
    s.height = 13;
    s.width = 11; /* 143 pixels */
    s.past = 2;
    check(p, &s);
    s.out = 192;
    s.in = 8;
    s.frames = 2;
    s.kt = 1;
    check(p, &s);
    s.out = 256;
    s.kh = s.kw = 1;
    s.top = s.bottom = s.left = s.right = 0;
    check(p, &s);
}

static void a_point_convolution_is_a_matrix_product(void **state)
{
    struct pair *p = *state;
    for (int in = 48; in <= 51; in++) {
        struct shape s = {.in = in, .out = 70, .kt = 1, .kh = 1, .kw = 1, .frames = 2, .height = 9, .width = 11,
            .st = 1,
                          .sh = 1, .sw = 1, .add = true};
        check(p, &s);
    }
}

static void upsampling_doubles_the_picture_before_a_flat_convolution(void **state)
{
    struct pair *p = *state;
    for (int in = 6; in <= 24; in += 6) {
        struct shape s = {.in = in, .out = 18, .kt = 1, .kh = 3, .kw = 3, .frames = 2, .height = 5, .width = 6,
                          .upsample = true, .st = 1, .sh = 1, .sw = 1, .top = 1, .bottom = 1, .left = 1, .right = 1};
        check(p, &s);
    }
}

static void strided_convolutions_pad_only_below_and_to_the_right(void **state)
{
    struct pair *p = *state;
    struct shape s = {.in = 20, .out = 20, .kt = 1, .kh = 3, .kw = 3, .frames = 2, .height = 8, .width = 10, .st = 1,
                      .sh = 2, .sw = 2, .bottom = 1, .right = 1};
    check(p, &s);
    s.in = 16;
    s.height = 9;
    s.width = 11;
    check(p, &s);
}

static void temporal_stride_without_padding_convolves_the_frames_at_hand(void **state)
{
    struct pair *p = *state;
    struct shape s = {.in = 20, .out = 20, .kt = 3, .kh = 1, .kw = 1, .frames = 4, .height = 4, .width = 5, .past = 1,
                      .no_time_padding = true, .st = 2, .sh = 1, .sw = 1};
    check(p, &s);
    s.past = 0;
    s.frames = 5;
    check(p, &s);
    s.past = 2;
    s.st = 1;
    check(p, &s);
}

static int random_up_to(int low, int high)
{
    return low + (int)(random_u32() % (uint32_t)(high - low + 1));
}

static void random_shapes_with_all_flags_agree(void **state)
{
    struct pair *p = *state;
    for (int i = 0; i < 40; i++) {
        struct shape s = {.in = random_up_to(1, 40), .out = random_up_to(1, 80), .kt = random_up_to(1, 3),
                          .kh = random_up_to(1, 4), .kw = random_up_to(1, 4), .frames = random_up_to(1, 3),
                          .height = random_up_to(2, 7), .width = random_up_to(2, 7), .past = random_up_to(0, 3),
                          .no_time_padding = random_up_to(0, 1), .upsample = random_up_to(0, 1),
                              .bf16 = random_up_to(0, 1),
                          .add = random_up_to(0, 1), .no_bias = random_up_to(0, 1), .st = random_up_to(1, 2),
                          .sh = random_up_to(1, 3), .sw = random_up_to(1, 3), .top = random_up_to(0, 2),
                          .bottom = random_up_to(1, 2), .left = random_up_to(0, 2), .right = random_up_to(2, 3)};
        if (i % 4)
            s.in = (s.in + 3) / 4 * 4;
        if (s.no_time_padding && s.past + s.frames < s.kt)
            s.frames = s.kt;
        check(p, &s);
    }
}

/* As the decoder and the encoder of the real VAE have them, at 768x768. */
static void the_real_layers_agree_on_a_card(void **state)
{
    struct pair *p = *state;
    static const struct { int in, out, kt, height, width, past; bool upsample; } layers[] = {
        {48, 1024, 3, 48, 48, 0, false},   {1024, 1024, 3, 48, 48, 2, false}, {1024, 1024, 1, 48, 48, 0, true},
        {512, 512, 3, 96, 96, 1, false},   {256, 256, 3, 192, 192, 2, false}, {256, 12, 3, 384, 384, 0, false},
        {12, 160, 3, 384, 384, 2, false},  {160, 160, 3, 192, 192, 0, false}, {320, 640, 3, 96, 96, 2, false}};
    if (!on_card(p))
        skip();
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        struct shape s = cube;
        s.in = layers[i].in;
        s.out = layers[i].out;
        s.kt = layers[i].kt;
        s.height = layers[i].height;
        s.width = layers[i].width;
        s.past = layers[i].past;
        s.upsample = layers[i].upsample;
        s.bf16 = true;
        s.add = i % 2 == 1;
        check(p, &s);
    }
}

static void a_first_frame_alone_costs_no_work_for_the_zero_frames_before_it(void **state)
{
    struct pair *p = *state;
    /* Weights of the earlier taps that are not numbers show in the result if they are read. */
    struct shape s = cube;
    s.in = 16;
    size_t row = 16 * 27, n = 40 * row;
    float *values = random_bf16(n + 40, 1.0f), *x = random_bf16(input_elements(&s, 1), 1.0f);
    float *old = random_bf16(output_elements(&s), 1.0f);
    for (size_t i = 0; i < n; i++)
        if (i % 27 < 18)
            values[i] = NAN;
    struct conv_source source = {.format = WEIGHT_F32, .out_channels = 40, .in_channels = 16, .kernel_t = 3,
        .kernel_h = 3,
                                 .kernel_w = 3, .weight = values, .bias = values + n};
    float *out = convolve(p->cuda, &s, &source, x, NULL, old);
    for (size_t i = 0; i < output_elements(&s); i++)
        assert_true(isfinite(out[i]));
    free(values), free(x), free(old), free(out);
}

static void float32_weights_are_rounded_to_the_nearest_bf16(void **state)
{
    struct pair *p = *state;
    enum { CHANNELS = 8 };
    float weight[CHANNELS * CHANNELS] = {0}, one[CHANNELS] = {1, 1, 1, 1, 1, 1, 1, 1}, old[CHANNELS] = {0};
    for (int i = 0; i < CHANNELS; i++)
        weight[i * CHANNELS + i] = 1.0f + (float)i / 1024.0f; /* bf16 has 128 steps from 1 to 2 */
    struct shape s = {.in = CHANNELS, .out = CHANNELS, .kt = 1, .kh = 1, .kw = 1, .frames = 1, .height = 1, .width = 1,
                      .st = 1, .sh = 1, .sw = 1};
    struct conv_source source = {.format = WEIGHT_F32, .out_channels = CHANNELS, .in_channels = CHANNELS, .kernel_t = 1,
                                 .kernel_h = 1, .kernel_w = 1, .weight = weight};
    float *out = convolve(p->cuda, &s, &source, one, NULL, old);
    for (int i = 0; i < CHANNELS; i++)
        assert_true(out[i] == bf16_to_float(float_to_bf16(weight[i * CHANNELS + i])));
    free(out);
}

static void the_same_call_gives_the_same_bytes(void **state)
{
    struct pair *p = *state;
    struct shape s = cube;
    s.frames = 3;
    struct weights w = random_weights(&s);
    size_t n = output_elements(&s);
    float *x = random_bf16(input_elements(&s, s.frames), 1.0f), *old = random_bf16(n, 1.0f), *out[2];
    for (int i = 0; i < 2; i++) {
            out[i] = convolve(p->cuda, &s, &w.source, x, NULL, old);
        }
    assert_memory_equal(out[0], out[1], n * sizeof(float));
    free(x), free(old), free(out[0]), free(out[1]), free(w.blocks[0]), free(w.blocks[1]);
}

static void a_convolution_without_weights_is_refused(void **state)
{
    struct pair *p = *state;
    struct kernels *k = p->cuda;
    struct conv *conv = NULL;
    struct error error;
    struct conv_source s = {.format = WEIGHT_F32, .out_channels = 1, .in_channels = 1, .kernel_t = 1, .kernel_h = 1,
                            .kernel_w = 1};
    assert_int_equal(k->conv_open(k, &conv, &s, &error), ERROR_BAD_FILE);
    s.weight = &s;
    s.format = WEIGHT_AWQ_INT4;
    assert_int_equal(k->conv_open(k, &conv, &s, &error), ERROR_BAD_FILE);
    assert_null(conv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_causal_cube_sees_past_frames_and_zeros_before_them),
        cmocka_unit_test(any_channel_counts_are_right),
        cmocka_unit_test(many_pixels_and_wide_channels_take_several_tiles),
        cmocka_unit_test(a_point_convolution_is_a_matrix_product),
        cmocka_unit_test(upsampling_doubles_the_picture_before_a_flat_convolution),
        cmocka_unit_test(strided_convolutions_pad_only_below_and_to_the_right),
        cmocka_unit_test(temporal_stride_without_padding_convolves_the_frames_at_hand),
        cmocka_unit_test(random_shapes_with_all_flags_agree),
        cmocka_unit_test(the_real_layers_agree_on_a_card),
        cmocka_unit_test(a_first_frame_alone_costs_no_work_for_the_zero_frames_before_it),
        cmocka_unit_test(float32_weights_are_rounded_to_the_nearest_bf16),
        cmocka_unit_test(the_same_call_gives_the_same_bytes),
        cmocka_unit_test(a_convolution_without_weights_is_refused),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
