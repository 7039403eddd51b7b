/* Norms, rotary positions, activations, the sampler's step and transfers of the CPU backend. */
#include "tests/unit/kernel_fixture.h"

static const int widths[] = {1, 7, 16, 33, 128, 2048};
enum { ROWS = 37 };

static void rms_norm_matches_double_precision_also_in_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        int width = widths[i];
        size_t n = (size_t)(ROWS * width);
        float *x = random_floats(n, 3.0f), *weight = random_floats((size_t)width, 1.0f);
        struct results r = {.n = n};
        double *want = zero_doubles(n);
        for (int row = 0; row < ROWS; row++) {
            double sum = 0.0;
            for (int j = 0; j < width; j++)
                sum += pow((double)x[row * width + j], 2);
            for (int j = 0; j < width; j++)
                want[row * width + j] = (double)x[row * width + j] / sqrt(sum / width + 1e-6) * (double)weight[j];
        }
        for (int which = 0; which < BACKENDS; which++) {
            struct kernels *k = open_backend(which);
            r.of[which] = output_like(x, n);
            k->rms_norm(k, which % 2 ? as_act(x) : as_act(r.of[which]), ROWS, width, as_param(weight), 1e-6f,
                        (act *)r.of[which]);
            k->close(k);
        }
        check_results(&r, want, 1e-6);
        free(want), free(x), free(weight);
    }
}

static void channel_norm_matches_double_precision_with_and_without_silu(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * sizeof widths / sizeof *widths; i++) {
        int width = widths[i / 2];
        bool silu = i % 2;
        size_t n = (size_t)(ROWS * width);
        float *x = random_floats(n, 3.0f), *gamma = random_floats((size_t)width, 2.0f);
        memset(x, 0, (size_t)width * sizeof *x); /* a pixel without length */
        struct results r = {.n = n};
        double *want = zero_doubles(n);
        for (int row = 0; row < ROWS; row++) {
            double sum = 0.0;
            for (int j = 0; j < width; j++)
                sum += pow((double)x[row * width + j], 2);
            for (int j = 0; j < width; j++) {
                double y = (double)x[row * width + j] / fmax(sqrt(sum), 1e-12) * sqrt(width) * (double)gamma[j];
                want[row * width + j] = silu ? y / (1.0 + exp(-y)) : y;
            }
        }
        for (int which = 0; which < BACKENDS; which++) {
            struct kernels *k = open_backend(which);
            r.of[which] = output_like(x, n);
            k->channel_norm(k, as_act(r.of[which]), ROWS, width, as_param(gamma), silu, (act *)r.of[which]);
            k->close(k);
        }
        check_results(&r, want, 1e-6);
        free(want), free(x), free(gamma);
    }
}

static void head_norm_rope_normalises_each_head_and_rotates_its_halves(void **state)
{
    (void)state;
    static const int dims[] = {2, 32, 80, 128, 6};
    enum { HEADS = 3 };
    for (size_t i = 0; i < 2 * sizeof dims / sizeof *dims; i++) {
        int dim = dims[i / 2], half = dim / 2, stride = HEADS * dim + 5;
        bool with_weight = i % 2;
        size_t n = (size_t)(ROWS * stride);
        float *x = random_floats(n, 2.0f), *weight = random_floats((size_t)dim, 1.0f);
        float *cosines = random_floats((size_t)(ROWS * half), 1.0f),
              *sines = random_floats((size_t)(ROWS * half), 1.0f);
        struct results r = {.n = n};
        double *want = zero_doubles(n);
        for (size_t j = 0; j < n; j++)
            want[j] = (double)x[j];
        for (int row = 0; row < ROWS; row++)
            for (int head = 0; head < HEADS; head++) {
                double *v = want + row * stride + head * dim, sum = 0.0;
                for (int j = 0; j < dim; j++)
                    sum += v[j] * v[j];
                for (int j = 0; with_weight && j < dim; j++)
                    v[j] = v[j] / sqrt(sum / dim + 1e-6) * (double)weight[j];
                for (int j = 0; j < half; j++) {
                    double a = v[j], b = v[half + j], c = (double)cosines[row * half + j],
                           s = (double)sines[row * half + j];
                    v[j] = a * c - b * s;
                    v[half + j] = b * c + a * s;
                }
            }
        for (int which = 0; which < BACKENDS; which++) {
            struct kernels *k = open_backend(which);
            r.of[which] = output_like(x, n);
            k->head_norm_rope(k,
                              &(struct head_part){.x = (act *)r.of[which], .rows = ROWS, .stride = stride,
                                                  .heads = HEADS, .weight = with_weight ? as_param(weight) : NULL,
                                                  .cosines = as_param(cosines), .sines = as_param(sines)},
                              1, dim, 1e-6f);
            k->close(k);
        }
        check_results(&r, want, 1e-6);
        free(want), free(x), free(weight), free(cosines), free(sines);
    }
}

static double silu(double x)
{
    return x / (1.0 + exp(-x));
}

static void activations_match_double_precision_far_from_zero_too(void **state)
{
    (void)state;
    static const float amplitudes[] = {0.01f, 1.0f, 10.0f, 60.0f, 1000.0f};
    enum { N = 20011 };
    for (size_t i = 0; i < sizeof amplitudes / sizeof *amplitudes; i++) {
        float *x = random_floats(N, amplitudes[i]), *up = random_floats(N, 1.0f);
        struct results s = {.n = N}, g = {.n = N}, w = {.n = N};
        double *silus = zero_doubles(N), *gelus = zero_doubles(N), *swiglus = zero_doubles(N);
        for (int j = 0; j < N; j++) {
            double v = (double)x[j];
            silus[j] = silu(v);
            gelus[j] = 0.5 * v * erfc(-v / sqrt(2.0));
            swiglus[j] = silus[j] * (double)up[j];
        }
        for (int which = 0; which < BACKENDS; which++) {
            struct kernels *k = open_backend(which);
            s.of[which] = output_like(x, N);
            g.of[which] = output_like(x, N);
            w.of[which] = output_like(x, N);
            k->silu(k, as_act(s.of[which]), N, (act *)s.of[which]);
            k->gelu(k, as_act(x), N, (act *)g.of[which]);
            k->swiglu(k, as_act(w.of[which]), as_act(up), N, (act *)w.of[which]);
            for (int j = 0; j < N; j++) /* each value, not only the whole; below 1e-30 it is zero for any purpose */
                assert_true(fabs((double)s.of[which][j] - silus[j]) <= 2e-6 * fabs(silus[j]) + 1e-30);
            k->close(k);
        }
        check_results(&s, silus, 1e-6);
        check_results(&g, gelus, 1e-6);
        check_results(&w, swiglus, 1e-6);
        free(x), free(up), free(silus), free(gelus), free(swiglus);
    }
}

static void add_and_add_row_accumulate(void **state)
{
    (void)state;
    enum { WIDTH = 1003, N = ROWS * WIDTH };
    float *x = random_floats(N, 1.0f);
    struct kernels *k = open_backend(3);
    float *y = output_like(NULL, N), *z = output_like(NULL, N);
    k->add(k, as_act(x), N, (act *)y);
    k->add_row(k, as_act(x), ROWS, WIDTH, (act *)z);
    for (int i = 0; i < N; i++) {
        assert_true(y[i] == 0.25f + x[i]);
        assert_true(z[i] == 0.25f + x[i % WIDTH]);
    }
    k->close(k);
    free(x), free(y), free(z);
}

static void check_step(enum guidance_renorm renorm, bool guided, float renorm_min, int first_row)
{
    enum { WIDTH = 48, N = ROWS * WIDTH };
    float *x = random_floats(N, 1.0f), *c = random_floats(N, 1.0f), *u = random_floats(N, 1.0f);
    float *v = output_like(NULL, N), *now = output_like(x, N);
    double *want_x = zero_doubles(N), *want_v = zero_doubles(N), cc = 0.0, ww = 0.0;
    for (int i = 0; i < N; i++) {
        want_v[i] = guided ? (double)u[i] + 4.0 * ((double)c[i] - (double)u[i]) : (double)c[i];
        cc += (double)c[i] * (double)c[i];
        ww += want_v[i] * want_v[i];
    }
    for (int row = 0; row < ROWS && guided && renorm != RENORM_NONE; row++) {
        double rc = 0.0, rw = 0.0;
        for (int i = row * WIDTH; i < (row + 1) * WIDTH; i++) {
            rc += (double)c[i] * (double)c[i];
            rw += want_v[i] * want_v[i];
        }
        double scale = renorm == RENORM_GLOBAL ? sqrt(cc) / sqrt(ww) : sqrt(rc) / sqrt(rw);
        scale = fmin(fmax(scale, (double)renorm_min), 1.0);
        for (int i = row * WIDTH; i < (row + 1) * WIDTH; i++)
            want_v[i] *= scale;
    }
    for (int i = 0; i < N; i++)
        want_x[i] = (double)x[i] - (i / WIDTH >= first_row ? want_v[i] * 0.125 : 0.0);
    struct kernels *k = open_backend(1);
    struct guided_step step = {.x = (param *)now, .v_cond = as_act(c), .v_uncond = guided ? as_act(u) : NULL,
                               .rows = ROWS, .width = WIDTH, .first_row = first_row, .guidance_scale = 4.0f,
                               .renorm = renorm, .renorm_min = renorm_min, .dt = 0.125f, .v_out = (param *)v};
    k->guided_step(k, &step);
    assert_close(now, want_x, N, 1e-6);
    assert_close(v, want_v, N, 1e-6);
    assert_memory_equal(now, x, (size_t)(first_row * WIDTH) * sizeof *x);
    k->close(k);
    free(x), free(c), free(u), free(v), free(now), free(want_x), free(want_v);
}

static void a_guided_step_combines_rescales_and_moves_the_latents(void **state)
{
    (void)state;
    check_step(RENORM_NONE, false, 0.0f, 0);
    check_step(RENORM_GLOBAL, true, 0.0f, 0);
    check_step(RENORM_GLOBAL, true, 0.6f, 5);
    check_step(RENORM_CHANNEL, true, 0.0f, 3);
    check_step(RENORM_NONE, true, 0.0f, 0);
}

static void transfers_carry_values_unchanged(void **state)
{
    (void)state;
    enum { N = 1000 };
    float *x = random_floats(N, 1.0f), back[N];
    struct kernels *k = open_backend(0);
    struct error error;
    void *a = NULL, *b = NULL;
    assert_int_equal(k->memory_alloc(k, &a, N * k->act_bytes, &error), 0);
    assert_int_equal(k->memory_alloc(k, &b, N * k->act_bytes, &error), 0);
    k->upload(k, a, x, N);
    k->copy(k, b, a, N);
    k->zero(k, act_at(k, b, 10), 5);
    k->download(k, back, b, N);
    memset(x + 10, 0, 5 * sizeof *x);
    assert_memory_equal(back, x, sizeof back);
    k->param_upload(k, a, x + 500, 500);
    k->param_to_act(k, b, a, 500);
    k->param_download(k, back, b, 500);
    assert_memory_equal(back, x + 500, 500 * sizeof *x);
    k->memory_free(k, a);
    k->memory_free(k, b);
    k->close(k);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rms_norm_matches_double_precision_also_in_place),
        cmocka_unit_test(channel_norm_matches_double_precision_with_and_without_silu),
        cmocka_unit_test(head_norm_rope_normalises_each_head_and_rotates_its_halves),
        cmocka_unit_test(activations_match_double_precision_far_from_zero_too),
        cmocka_unit_test(add_and_add_row_accumulate),
        cmocka_unit_test(a_guided_step_combines_rescales_and_moves_the_latents),
        cmocka_unit_test(transfers_carry_values_unchanged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
