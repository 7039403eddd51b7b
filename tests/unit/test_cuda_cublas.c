/* Products through cuBLASLt beside the CPU's, and what happens when the library fails: the bytes of a result never
 * depend on the memory that is free. The library is the emulated one (tests/cuda_emulation/cublaslt). */
#include "tests/unit/cuda_fixture.h"
#include "tests/unit/matrix_fixture.h"

enum { ROWS = 40, OUT = 48, IN = 64 }; /* rows enough for the library */

static const char *library_path;

static int choose_library(void **state)
{
    (void)state;
    library_path = choose_emulated_library("LANCED_CUBLASLT", "cublaslt/libcublasLt.so.12");
    return 0;
}

/* The work of these tests: y = x w + bias, and y += x w. */
struct work {
    struct pair p;
    struct matrix m;
    struct linear *w[2]; /* the CPU's, and the card's */
    float *x;
    act *x_on[2], *y_on[2];
    bool adds;
};

static struct kernels *backend(struct work *work, int i)
{
    return i ? work->p.cuda : work->p.cpu;
}

static void open_work(struct work *work, bool adds)
{
    struct error error = {0};
    float zeros[ROWS * OUT] = {0};
    *work = (struct work){.adds = adds};
    if (kernels_cpu_open(&work->p.cpu, 0, CPU_AUTO, &error) || kernels_cuda_load(&work->p.cuda, 0, &error))
        fail_msg("%s", error.text);
    *random_state() = 5;
    work->m = make_matrix(WEIGHT_BF16, OUT, IN, 0, false, WEIGHT_BF16, !adds);
    work->x = random_bf16(ROWS * IN, 1.0f);
    for (int i = 0; i < 2; i++) {
        struct kernels *k = backend(work, i);
        assert_int_equal(k->linear_open(k, &work->w[i], &work->m.source, &error), 0);
        work->x_on[i] = act_with(k, work->x, ROWS * IN);
        work->y_on[i] = act_with(k, zeros, ROWS * OUT);
    }
}

static void close_work(struct work *work)
{
    for (int i = 0; i < 2; i++) {
        struct kernels *k = backend(work, i);
        k->memory_free(k, work->x_on[i]);
        k->memory_free(k, work->y_on[i]);
        k->linear_close(k, work->w[i]);
        k->close(k);
    }
    free(work->x);
    free_matrix(&work->m);
    unsetenv("EMULATED_CUBLASLT_FAULT");
}

static void multiply_on(struct work *work, int i)
{
    struct kernels *k = backend(work, i);
    k->linear(k, work->w[i], work->x_on[i], ROWS, work->y_on[i], work->adds);
}

static void multiply(void *work)
{
    multiply_on(work, 1);
}

/* What the card makes of it, through *graph or, with NULL, plainly; to be freed. */
static float *result_of(struct work *work, struct graph **graph)
{
    if (graph)
        work->p.cuda->graph_run(work->p.cuda, graph, 0, multiply, work);
    else
        multiply(work);
    return values_of_act(work->p.cuda, work->y_on[1], ROWS * OUT);
}

/* How many products the library did, since the program began. */
static int products(void)
{
    return emulated_count(library_path, "emulated_cublaslt_products");
}

static void assert_right(struct work *work)
{
    multiply_on(work, 0);
    float *got = result_of(work, NULL), *want = values_of_act(work->p.cpu, work->y_on[0], ROWS * OUT);
    assert_near(got, want, ROWS * OUT, 1.02 * BF16_ROUNDING, 1.02 * BF16_ROUNDING);
    free(got), free(want);
}

static void products_of_the_library_agree_with_the_cpu(void **state)
{
    (void)state;
    for (int adds = 0; adds < 2; adds++) {
        struct work work;
        open_work(&work, adds != 0);
        assert_non_null(strstr(work.p.cuda->name, "with cuBLASLt"));
        const int before = products();
        assert_right(&work);
        assert_int_equal(products() - before, 1);
        assert_string_equal(work.p.cuda->notice, "");
        close_work(&work);
    }
}

/* Without memory the work fails; with it again the library does it, with the bytes that it always gives. */
static void free_memory_decides_no_bytes(void **state)
{
    (void)state;
    static const char *const lacks[] = {"choose-memory", "multiply-memory"};
    struct work work;
    open_work(&work, false);
    float *with_plenty = result_of(&work, NULL);
    close_work(&work);
    for (size_t i = 0; i < 2 * sizeof lacks / sizeof *lacks; i++) { /* plainly, and recorded */
        struct graph *graph = NULL;
        open_work(&work, false);
        struct kernels *k = work.p.cuda;
        const int before = products();
        setenv("EMULATED_CUBLASLT_FAULT", lacks[i / 2], 1);
        for (int job = 0; job < 3; job++) {
            struct error error;
            if (i % 2)
                k->graph_run(k, &graph, 0, multiply, &work);
            else
                multiply(&work);
            assert_int_equal(k->sync(k, &error), ERROR_NO_MEMORY);
            assert_non_null(strstr(error.text, "cuBLASLt has no memory"));
        }
        unsetenv("EMULATED_CUBLASLT_FAULT");
        assert_int_equal(products(), before);
        for (int job = 0; job < 4; job++) {
            float *result = result_of(&work, i % 2 ? &graph : NULL);
            assert_memory_equal(result, with_plenty, ROWS * OUT * sizeof *result);
            free(result);
        }
        assert_int_equal(products() - before, i % 2 ? 2 : 4); /* plainly and recorded; then the graph is played */
        assert_null(strstr(k->name, "refused"));
        k->graph_close(k, graph);
        close_work(&work);
    }
    free(with_plenty);
}

static void a_product_that_the_library_refuses_is_our_own_from_then_on_and_the_name_says_so(void **state)
{
    (void)state;
    struct work work;
    open_work(&work, false);
    const int before = products();
    setenv("EMULATED_CUBLASLT_FAULT", "multiply", 1);
    assert_right(&work);
    unsetenv("EMULATED_CUBLASLT_FAULT");
    assert_right(&work); /* the same name, the same bytes: it is not tried again */
    assert_int_equal(products(), before);
    assert_non_null(strstr(work.p.cuda->name, "with cuBLASLt (which refused 1 shape of products)"));
    assert_non_null(strstr(work.p.cuda->notice, "cuBLASLt does not do a product of 40 rows"));
    close_work(&work);
}

static void a_shape_that_the_library_never_does_is_our_own_without_a_word(void **state)
{
    (void)state;
    struct work work;
    open_work(&work, false);
    setenv("EMULATED_CUBLASLT_FAULT", "choose", 1); /* it says so of the shape alone, each time */
    assert_right(&work);
    assert_null(strstr(work.p.cuda->name, "refused"));
    close_work(&work);
}

static void recorded_products_have_the_bytes_of_plain_ones(void **state)
{
    (void)state;
    static const char *const faults[] = {"", "record"};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct work work;
        struct graph *graph = NULL;
        open_work(&work, false);
        setenv("EMULATED_CUBLASLT_FAULT", faults[i], 1);
        float *plainly = result_of(&work, NULL);
        for (int times = 0; times < 4; times++) {
            float *result = result_of(&work, &graph);
            assert_memory_equal(result, plainly, ROWS * OUT * sizeof *result);
            free(result);
        }
        assert_null(strstr(work.p.cuda->name, "refused"));
        free(plainly);
        work.p.cuda->graph_close(work.p.cuda, graph);
        close_work(&work);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_of_the_library_agree_with_the_cpu),
        cmocka_unit_test(free_memory_decides_no_bytes),
        cmocka_unit_test(a_product_that_the_library_refuses_is_our_own_from_then_on_and_the_name_says_so),
        cmocka_unit_test(a_shape_that_the_library_never_does_is_our_own_without_a_word),
        cmocka_unit_test(recorded_products_have_the_bytes_of_plain_ones),
    };
    return cmocka_run_group_tests(tests, choose_library, NULL);
}
