/* The numbers and groups of kernels/formats beside their definitions, and every decoder of
 * the CPU backend beside them. */
#include "tests/unit/matrix_fixture.h"

/* --- numbers ---------------------------------------------------------------------------------- */

static void every_fp8_code_is_the_number_that_e4m3_defines(void **state)
{
    (void)state;
    for (int code = 0; code < 256; code++) {
        int exponent = code >> 3 & 15, mantissa = code & 7;
        double size = exponent ? ldexp(1.0 + mantissa / 8.0, exponent - 7) : ldexp(mantissa / 8.0, -6);
        assert_true((double)e4m3_to_float((uint8_t)code) == (code & 0x80 ? -size : size));
        assert_true(!signbit(e4m3_to_float((uint8_t)code)) == !(code & 0x80));
    }
}

static void every_fp4_code_is_the_number_that_e2m1_defines(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 16; code++) {
        unsigned exponent = code >> 1 & 3, mantissa = code & 1;
        double size = exponent ? ldexp(1.0 + mantissa / 2.0, (int)exponent - 1) : mantissa / 2.0;
        assert_true((double)fp4_to_float(code) == (code & 8 ? -size : size));
        assert_true(!signbit(fp4_to_float(code)) == !(code & 8));
    }
}

static void a_bf16_is_the_upper_half_of_a_float32(void **state)
{
    (void)state;
    assert_true(bf16_to_float(0x3f80) == 1.0f && bf16_to_float(0xc049) == -3.140625f &&
                bf16_to_float(0x0001) == 0x1p-133f);
    for (uint32_t code = 0; code < 0x10000; code++)
        if ((code & 0x7f80) != 0x7f80)
            assert_int_equal(float_to_bf16(bf16_to_float((uint16_t)code)), code);
    assert_int_equal(float_to_bf16(0x1.01p0f), 0x3f80); /* half way to 0x3f81: the even one */
    assert_int_equal(float_to_bf16(0x1.03p0f), 0x3f82);
    assert_int_equal(float_to_bf16(0x1.010002p0f), 0x3f81);
}

static unsigned nearest_fp8(float value)
{
    return float_to_e4m3(value);
}

/* Every code is its own nearest; what lies between two goes to the nearer, or, half way, to the even one. */
static void assert_rounds_to_nearest(unsigned (*encode)(float), float (*decode)(unsigned), unsigned largest,
                                     unsigned sign)
{
    for (unsigned code = 0; code < largest; code++) {
        const float low = decode(code), high = decode(code + 1), middle = 0.5f * (low + high);
        const unsigned even = code % 2 ? code + 1 : code;
        for (unsigned s = 0; s <= sign; s += sign) {
            const float direction = s ? -1.0f : 1.0f;
            assert_int_equal(encode(direction * low), code | s);
            assert_int_equal(encode(direction * middle), even | s);
            assert_int_equal(encode(direction * nextafterf(middle, low)), code | s);
            assert_int_equal(encode(direction * nextafterf(middle, high)), (code + 1) | s);
        }
    }
    assert_int_equal(encode(decode(largest)), largest);
    assert_int_equal(encode(1000.0f), largest);
    assert_int_equal(encode(-INFINITY), largest | sign);
}

static float fp8(unsigned code)
{
    return e4m3_to_float((uint8_t)code);
}

static void fp8_and_fp4_take_the_nearest_number(void **state)
{
    (void)state;
    assert_rounds_to_nearest(nearest_fp8, fp8, 0x7e, 0x80);
    assert_rounds_to_nearest(float_to_fp4, fp4_to_float, 7, 8);
}

/* --- groups ------------------------------------------------------------------------------------ */

static void the_low_nibble_is_the_even_column(void **state)
{
    (void)state;
    uint8_t codes[3] = {0x21, 0x43, 0x65};
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(code_at(codes, i), i + 1);
    code_put(codes, 2, 15);
    code_put(codes, 5, 0);
    assert_int_equal(codes[0], 0x21);
    assert_int_equal(codes[1], 0x4f);
    assert_int_equal(codes[2], 0x05);
}

static void a_code_is_worth_what_its_format_says(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 16; code++)
        for (int other = 0; other < 256; other++) {
            const float scale = 0.375f * (float)(other % 7 - 3), zero = (float)other, offset = -0.0625f * zero;
            assert_true(code_value(WEIGHT_AWQ_INT4, code, scale, zero) == (float)(((int)code - other)) * scale);
            assert_true(code_value(WEIGHT_MLX_INT4, code, scale, offset) == (float)code * scale + offset);
            assert_true(code_value(WEIGHT_NVFP4, code, scale, 0.0f) == fp4_to_float(code) * scale);
        }
    for (unsigned code = 0; code < 256; code++)
        for (int other = 0; other < 256; other++) {
            const float scale = 0.375f * (float)(other % 7 - 3), zero = (float)other, offset = -0.0625f * zero;
            const int with_sign = (int)code - (code >= 128 ? 256 : 0);
            assert_true(code_value(WEIGHT_INT8, code, scale, 0.0f) == (float)with_sign * scale);
            assert_true(code_value(WEIGHT_AWQ_INT8, code, scale, zero) == (float)((int)code - other) * scale);
            assert_true(code_value(WEIGHT_MLX_INT8, code, scale, offset) == (float)code * scale + offset);
        }
}

static void every_code_of_a_byte_is_found_again_from_its_value(void **state)
{
    (void)state;
    static const struct { enum weight_format format; float scale, second; } groups[] = {
        {WEIGHT_INT8, 0.25f, 0.0f}, {WEIGHT_INT8, -3.0f, 0.0f}, {WEIGHT_AWQ_INT8, 0x1p-90f, 15.0f},
        {WEIGHT_AWQ_INT8, 0.5f, 255.0f}, {WEIGHT_MLX_INT8, -0.125f, 4.0f},
    };
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        uint8_t codes[258], again[258] = {0x5a};
        float values[256];
        for (unsigned i = 0; i < 258; i++)
            codes[i] = i == 0 || i == 257 ? 0x5a : (uint8_t)(i == 129 && groups[g].format == WEIGHT_INT8 ? 1 : i - 1);
        again[257] = 0x5a;
        group_decode(groups[g].format, codes, 1, 256, groups[g].scale, groups[g].second, values);
        group_encode(groups[g].format, values, 256, groups[g].scale, groups[g].second, again, 1);
        assert_memory_equal(codes, again, sizeof codes); /* but for INT8's -128, which no value gets */
    }
}

/* An odd beginning, and neighbours that must stay as they are. */
static void what_is_encoded_decodes_to_the_same(void **state)
{
    (void)state;
    static const struct { enum weight_format format; float scale, second; } groups[] = {
        {WEIGHT_AWQ_INT4, 0.25f, 7.0f}, {WEIGHT_AWQ_INT4, -3.0f, 0.0f},   {WEIGHT_AWQ_INT4, 0x1p-90f, 15.0f},
        {WEIGHT_MLX_INT4, 0.5f, -3.5f}, {WEIGHT_MLX_INT4, -0.125f, 0.0f}, {WEIGHT_NVFP4, 0.01f, 0.0f},
        {WEIGHT_NVFP4, -448.0f, 0.0f},
    };
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        uint8_t codes[9] = {0x0b}, again[9] = {0x0b};
        float values[16], decoded[16];
        for (unsigned i = 0; i < 16; i++)
            code_put(codes, i + 1, 15 - i);
        code_put(codes, 17, 0xc);
        code_put(again, 17, 0xc);
        group_decode(groups[g].format, codes, 1, 16, groups[g].scale, groups[g].second, values);
        group_encode(groups[g].format, values, 16, groups[g].scale, groups[g].second, again, 1);
        group_decode(groups[g].format, again, 1, 16, groups[g].scale, groups[g].second, decoded);
        for (int i = 0; i < 16; i++)
            assert_true(values[i] == decoded[i]);
        assert_memory_equal(codes, again, sizeof codes);
    }
}

static void values_outside_of_a_groups_range_take_its_ends(void **state)
{
    (void)state;
    assert_int_equal(code_nearest(WEIGHT_AWQ_INT4, 100.0f, 0.5f, 7.0f), 15);
    assert_int_equal(code_nearest(WEIGHT_AWQ_INT4, -100.0f, 0.5f, 7.0f), 0);
    assert_int_equal(code_nearest(WEIGHT_MLX_INT4, 9.0f, 0.5f, 1.0f), 15);
    assert_int_equal(code_nearest(WEIGHT_MLX_INT4, 9.0f, -0.5f, 1.0f), 0);
    assert_int_equal(code_nearest(WEIGHT_NVFP4, -9.0f, 0.5f, 0.0f), 15);
    assert_int_equal(code_nearest(WEIGHT_NVFP4, 9.0f, 0.5f, 0.0f), 7);
    assert_int_equal(code_nearest(WEIGHT_INT8, 100.0f, 0.5f, 0.0f), 127);
    assert_int_equal(code_nearest(WEIGHT_INT8, -100.0f, 0.5f, 0.0f), 129);
    assert_int_equal(code_nearest(WEIGHT_AWQ_INT8, 200.0f, 0.5f, 7.0f), 255);
    assert_int_equal(code_nearest(WEIGHT_MLX_INT8, -9.0f, 0.5f, 1.0f), 0);
}

static void rows_take_the_bytes_that_their_format_says(void **state)
{
    (void)state;
    struct linear_source s = {
        .format = WEIGHT_F32, .out_features = 3, .in_features = 64, .group_size = 16, .scales = ""};
    assert_int_equal(linear_row_bytes(&s).data, 256);
    assert_int_equal(linear_row_bytes(&s).scales, 0);
    s.format = WEIGHT_AWQ_INT4;
    struct linear_row_bytes bytes = linear_row_bytes(&s);
    assert_true(bytes.data == 32 && bytes.scales == 8 && bytes.scales_fp8 == 0 && bytes.zeros == 4 &&
                bytes.offsets == 0);
    s.format = WEIGHT_MLX_INT4;
    bytes = linear_row_bytes(&s);
    assert_true(bytes.data == 32 && bytes.scales == 8 && bytes.scales_fp8 == 0 && bytes.zeros == 0 &&
                bytes.offsets == 8);
    s.format = WEIGHT_INT8;
    bytes = linear_row_bytes(&s);
    assert_true(bytes.data == 64 && bytes.scales == 8 && bytes.zeros == 0 && bytes.offsets == 0);
    s.format = WEIGHT_AWQ_INT8;
    bytes = linear_row_bytes(&s);
    assert_true(bytes.data == 64 && bytes.scales == 8 && bytes.zeros == 4 && bytes.offsets == 0);
    s.format = WEIGHT_MLX_INT8;
    bytes = linear_row_bytes(&s);
    assert_true(bytes.data == 64 && bytes.scales == 8 && bytes.zeros == 0 && bytes.offsets == 8);
    s.format = WEIGHT_NVFP4;
    s.scales = NULL;
    bytes = linear_row_bytes(&s);
    assert_true(bytes.data == 32 && bytes.scales == 0 && bytes.scales_fp8 == 4 && bytes.zeros == 0 &&
                bytes.offsets == 0);
}

/* --- the decoders of the CPU backend ---------------------------------------------------------------- */

/* x is the unit matrix, so that the product is the matrix itself: exactly, as all else that is summed is 0. */
static void assert_products_decode(struct kernels *k, const struct linear *w, const struct matrix *m, bool rounds)
{
    enum { IN = EXHAUSTIVE_COLUMNS };
    const size_t out = (size_t)m->source.out_features;
    float *x = checked_alloc(IN * IN * sizeof *x), *y = checked_alloc(IN * out * sizeof *y);
    for (size_t i = 0; i < IN * IN; i++)
        x[i] = i / IN == i % IN ? 1.0f : 0.0f;
    k->linear(k, w, (const act *)x, IN, (act *)y, false);
    assert_int_equal(k->sync(k, NULL), 0);
    for (size_t o = 0; o < out; o++)
        for (size_t i = 0; i < IN; i++) {
            const float value = (float)m->values[o * IN + i];
            const float want = rounds ? bf16_to_float(float_to_bf16(value)) : value;
            if (y[i * out + o] != want)
                fail_msg("%s: row %zu, column %zu is %a, not %a", k->name, o, i, (double)y[i * out + o], (double)want);
        }
    free(x), free(y);
}

/* One row of x is multiplied in another way, which is exact to 2^-22 of the largest number in it. */
static void assert_single_rows_decode(struct kernels *k, const struct linear *w, const struct matrix *m)
{
    enum { IN = EXHAUSTIVE_COLUMNS };
    const size_t out = (size_t)m->source.out_features;
    float x[IN] = {0}, *y = checked_alloc(out * sizeof *y);
    for (size_t i = 0; i < IN; i += 5) {
        x[i] = 1.0f;
        k->linear(k, w, (const act *)x, 1, (act *)y, false);
        x[i] = 0.0f;
        for (size_t o = 0; o < out; o++) {
            const double group_size = m->source.group_size, in_row = floor((double)i / group_size) * group_size;
            double largest = 0.0;
            for (size_t j = (size_t)in_row; j < (size_t)(in_row + group_size); j++)
                largest = fmax(largest, fabs(m->values[o * IN + j]));
            if (fabs((double)y[o] - m->values[o * IN + i]) > ldexp(largest, -18))
                fail_msg("%s: row %zu, column %zu is %a, not %a", k->name, o, i, (double)y[o], m->values[o * IN + i]);
        }
    }
    free(y);
}

static void every_decoder_of_the_cpu_gives_the_weights_of_the_reference(void **state)
{
    (void)state;
    static const struct { enum weight_format format; bool fp8; int zeros; } kinds[] = {
        {WEIGHT_AWQ_INT4, false, 16}, {WEIGHT_AWQ_INT4, false, 256}, {WEIGHT_MLX_INT4, false, 16},
        {WEIGHT_NVFP4, false, 16},    {WEIGHT_NVFP4, true, 16},       {WEIGHT_INT8, false, 16},
        {WEIGHT_AWQ_INT8, false, 256}, {WEIGHT_MLX_INT8, false, 16},
    };
    static const int groups[] = {8, 12, 16, 32, 64, 96};
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++)
        for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
            struct matrix m = make_exhaustive_matrix(kinds[kind].format, groups[g], kinds[kind].fp8, kinds[kind].zeros);
            for (int which = 0; which < ROUNDED_BACKENDS; which += 2) {
                struct kernels *k = open_backend(which);
                struct linear *w = NULL;
                assert_int_equal(k->linear_open(k, &w, &m.source, NULL), 0);
                assert_products_decode(k, w, &m, which >= BACKENDS);
                assert_single_rows_decode(k, w, &m);
                k->linear_close(k, w);
                k->close(k);
            }
            free_matrix(&m);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_fp8_code_is_the_number_that_e4m3_defines),
        cmocka_unit_test(every_fp4_code_is_the_number_that_e2m1_defines),
        cmocka_unit_test(a_bf16_is_the_upper_half_of_a_float32),
        cmocka_unit_test(fp8_and_fp4_take_the_nearest_number),
        cmocka_unit_test(the_low_nibble_is_the_even_column),
        cmocka_unit_test(a_code_is_worth_what_its_format_says),
        cmocka_unit_test(every_code_of_a_byte_is_found_again_from_its_value),
        cmocka_unit_test(what_is_encoded_decodes_to_the_same),
        cmocka_unit_test(values_outside_of_a_groups_range_take_its_ends),
        cmocka_unit_test(rows_take_the_bytes_that_their_format_says),
        cmocka_unit_test(every_decoder_of_the_cpu_gives_the_weights_of_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
