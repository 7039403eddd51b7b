/* Attention through cuDNN beside the CPU's: which problems go there, in which form, and what happens when the library
 * fails. The library is the emulated one (tests/cuda_emulation/cudnn). */
#include <dlfcn.h>

#include "tests/unit/attention_fixture.h"

static const char *library_path;

static int choose_library(void **state)
{
    (void)state;
    library_path = choose_emulated_library("LANCED_CUDNN", "cudnn/libcudnn.so.9");
    return 0;
}

/* Backends that found a library of this version (NULL: the newest). */
static struct pair open_with(const char *version)
{
    struct pair p = {0};
    struct error error = {0};
    if (version)
        setenv("EMULATED_CUDNN_VERSION", version, 1);
    if (kernels_cpu_open(&p.cpu, 0, CPU_AUTO, &error) || kernels_cuda_load(&p.cuda, 0, &error))
        fail_msg("%s", error.text);
    return p;
}

static void close_all(struct pair *p)
{
    p->cuda->close(p->cuda);
    p->cpu->close(p->cpu);
    unsetenv("EMULATED_CUDNN_VERSION");
    unsetenv("EMULATED_CUDNN_FAULT");
}

static int plans(void) { return emulated_count(library_path, "emulated_cudnn_plans"); }
static int executions(void) { return emulated_count(library_path, "emulated_cudnn_executions"); }

/* One that cuDNN does: rows enough, keys in several pieces. */
static const struct shape shape = {.q_rows = 200, .heads = 2, .kv_heads = 1, .head_dim = 64, .segments = 3,
                                   .segment_rows = {37, 2, 200}, .amplitude = 2};

static void both_descriptions_of_attention_agree_with_the_cpu(void **state)
{
    (void)state;
    static const char *const versions[] = {"90800", "91499", "91500"};
    static const struct shape other = {.q_rows = 192, .heads = 2, .kv_heads = 1, .head_dim = 128, .segments = 1,
                                       .segment_rows = {256}, .amplitude = 3};
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        struct pair p = open_with(versions[i]);
        int before = executions();
        check(&p, &shape, 1);
        check(&p, &other, 1);
        assert_int_equal(executions() - before, 2);
        assert_string_equal(p.cuda->notice, ""); /* its own results were right, not those of our kernel in its place */
        close_all(&p);
    }
}

static void the_backend_says_that_it_is_there(void **state)
{
    (void)state;
    struct pair p = open_with(NULL);
    assert_non_null(strstr(p.cuda->name, "with cuDNN"));
    close_all(&p);
    setenv("LANCED_CUDNN", "", 1);
    p = open_with(NULL);
    assert_null(strstr(p.cuda->name, "cuDNN"));
    int before = executions();
    check(&p, &shape, 1);
    assert_int_equal(executions(), before);
    close_all(&p);
    setenv("LANCED_CUDNN", library_path, 1);
}

static void versions_that_are_too_old_or_known_to_be_wrong_are_not_used(void **state)
{
    (void)state;
    static const char *const versions[] = {"90799", "91000", "91001"};
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        struct pair p = open_with(versions[i]);
        assert_null(strstr(p.cuda->name, "cuDNN"));
        close_all(&p);
    }
}

/* The real one would end the program when it asks for them. Must run before any other test: a file that was opened once
 * is found again by its name even when it is gone. */
static void a_library_without_the_files_beside_it_is_not_used(void **state)
{
    (void)state;
    static const char *const missing[] = {"libcudnn_graph.so.9", "libcublasLt.so.13"};
    char file[4300], aside[4310];
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++) {
        void *elsewhere = dlopen(missing[i], RTLD_NOW);
        if (elsewhere) { /* this machine has one: it will not be missed */
            dlclose(elsewhere);
            continue;
        }
        snprintf(file, sizeof file, "%s", library_path);
        snprintf(strrchr(file, '/'), 100, "/%s", missing[i]);
        snprintf(aside, sizeof aside, "%s.aside", file);
        assert_int_equal(rename(file, aside), 0);
        struct pair p = open_with(NULL);
        assert_int_equal(rename(aside, file), 0);
        assert_null(strstr(p.cuda->name, "cuDNN"));
        close_all(&p);
    }
}

static void problems_that_are_not_for_the_library_are_our_own(void **state)
{
    (void)state;
    struct shape few = shape, causal = shape, narrow = shape, unaligned = shape;
    few.q_rows = 100, few.segment_rows[2] = 100;
    causal.causal = true;
    narrow.head_dim = 32;
    unaligned.skip = 1;
    struct pair p = open_with(NULL);
    int before = executions();
    check(&p, &few, 1);
    check(&p, &causal, 1);
    check(&p, &narrow, 1);
    check(&p, &unaligned, 1);
    assert_int_equal(executions(), before);
    close_all(&p);
}

static void prompts_of_any_length_share_a_plan(void **state)
{
    (void)state;
    struct pair p = open_with(NULL);
    int before = plans();
    struct shape longer = shape;
    for (int length = 1; length < 55; length += 26) {
        longer.segment_rows[0] = length;
        check(&p, &longer, 1);
    }
    assert_int_equal(plans() - before, 1);
    longer.segment_rows[0] = 80;
    check(&p, &longer, 1);
    assert_int_equal(plans() - before, 2);
    assert_string_equal(p.cuda->notice, "");
    close_all(&p);
}

static void several_problems_of_one_call_take_turns(void **state)
{
    (void)state;
    struct shape shapes[3] = {shape, shape, shape};
    shapes[1].q_rows = 3;
    shapes[2].segment_rows[0] = 90, shapes[2].kv_heads = 2;
    struct pair p = open_with(NULL);
    check(&p, shapes, 3);
    assert_string_equal(p.cuda->notice, "");
    close_all(&p);
}

static void the_same_problem_gives_the_same_bytes(void **state)
{
    (void)state;
    struct pair p = open_with(NULL);
    struct tensors tensors = {.count = 0};
    struct attention problem = make_problem(p.cuda, &shape, &tensors);
    float *result[2];
    for (int i = 0; i < 2; i++) { /* the first time it is compared with our own kernel's */
        p.cuda->attention(p.cuda, &problem, 1);
        result[i] = values_of_act(p.cuda, problem.out, result_size(&shape));
    }
    assert_memory_equal(result[0], result[1], result_size(&shape) * sizeof(float));
    free(result[0]), free(result[1]);
    free_tensors(p.cuda, &tensors);
    close_all(&p);
}

/* What a piece of recorded work does: one attention. */
struct work {
    struct kernels *k;
    struct attention problem;
};

static void attend(void *context)
{
    struct work *work = context;
    work->k->attention(work->k, &work->problem, 1);
}

/* Do the work, through *graph or, with NULL, plainly; what came out, to be freed. */
static float *result_of(struct work *work, struct graph **graph)
{
    if (graph)
        work->k->graph_run(work->k, graph, 0, attend, work);
    else
        attend(work);
    return values_of_act(work->k, work->problem.out, result_size(&shape));
}

static void assert_same_result(const float *one, const float *other)
{
    assert_memory_equal(one, other, result_size(&shape) * sizeof(float));
}

static void assert_the_graph_gives_what_plain_work_does(struct work *work, struct graph **graph)
{
    float *through_graph = result_of(work, graph), *plainly = result_of(work, NULL);
    assert_same_result(through_graph, plainly);
    free(through_graph), free(plainly);
}

static void recorded_work_plays_the_library_too(void **state)
{
    (void)state;
    struct pair p = open_with(NULL);
    struct tensors tensors = {.count = 0};
    struct work work = {p.cuda, make_problem(p.cuda, &shape, &tensors)};
    struct graph *graph = NULL;
    float *result[4];
    int before = executions();
    for (int i = 0; i < 4; i++) /* plainly, recorded, played; and plainly again */
        result[i] = result_of(&work, i < 3 ? &graph : NULL);
    assert_int_equal(executions() - before, 3); /* the third time it was played */
    for (int i = 1; i < 4; i++)
        assert_same_result(result[0], result[i]);
    int made = plans();
    work.problem.segment[0].rows = 3; /* fewer keys: the same plan, but another call */
    assert_the_graph_gives_what_plain_work_does(&work, &graph);
    assert_int_equal(plans(), made);
    work.problem.q_rows = 195; /* another plan: in the midst of a recording it can be neither made nor compared */
    assert_the_graph_gives_what_plain_work_does(&work, &graph);
    assert_int_equal(plans(), made + 1);
    assert_string_equal(p.cuda->notice, "");
    p.cuda->graph_close(p.cuda, graph);
    for (int i = 0; i < 4; i++)
        free(result[i]);
    free_tensors(p.cuda, &tensors);
    close_all(&p);
}

/* A result's bytes do not depend on whether work can be recorded: a library that cannot be is not
 * replaced, but used plainly. */
static void a_library_that_cannot_be_recorded_is_used_plainly(void **state)
{
    (void)state;
    enum { TIMES = 6 };
    struct pair p = open_with(NULL);
    struct tensors tensors = {.count = 0};
    struct work work = {p.cuda, make_problem(p.cuda, &shape, &tensors)};
    struct graph *graph = NULL;
    float *result[TIMES];
    setenv("EMULATED_CUDNN_FAULT", "record", 1);
    const int before = executions();
    for (int i = 0; i < TIMES; i++)
        result[i] = result_of(&work, &graph);
    assert_int_equal(executions() - before, TIMES);
    for (int i = 1; i < TIMES; i++)
        assert_same_result(result[0], result[i]);
    assert_non_null(strstr(p.cuda->notice, "cuDNN's attention cannot be recorded"));
    p.cuda->graph_close(p.cuda, graph);
    for (int i = 0; i < TIMES; i++)
        free(result[i]);
    free_tensors(p.cuda, &tensors);
    close_all(&p);
}

/* Without memory the work fails; with it again, the library does it, with the bytes that it always gives. Free memory
 * does not decide who computes. */
static void memory_does_not_choose_who_computes(struct work *work, struct graph **graph, const float *with_plenty,
                                                const char *lack, const char *message)
{
    struct error error;
    const int before = executions();
    if (lack)
        setenv("EMULATED_CUDNN_FAULT", lack, 1);
    else
        setenv("LANCED_EMULATION_MEMORY", "1", 1);
    for (int i = 0; i < 4; i++) { /* one job after another */
        if (graph)
            work->k->graph_run(work->k, graph, 0, attend, work);
        else
            attend(work);
        assert_int_equal(work->k->sync(work->k, &error), ERROR_NO_MEMORY);
        assert_non_null(strstr(error.text, message));
    }
    unsetenv("EMULATED_CUDNN_FAULT");
    unsetenv("LANCED_EMULATION_MEMORY");
    assert_int_equal(executions(), before);
    for (int i = 0; i < 4; i++) {
        float *result = result_of(work, graph);
        assert_same_result(result, with_plenty);
        free(result);
    }
    assert_int_equal(executions() - before, graph ? 2 : 4); /* plainly and recorded; then the graph is played */
    assert_string_equal(work->k->notice, "");
    assert_non_null(strstr(work->k->name, "with cuDNN"));
    assert_null(strstr(work->k->name, "refused"));
}

static float *result_with_plenty(uint64_t seed)
{
    struct pair p = open_with(NULL);
    struct tensors tensors = {.count = 0};
    *random_state() = seed;
    struct work work = {p.cuda, make_problem(p.cuda, &shape, &tensors)};
    float *result = result_of(&work, NULL);
    free_tensors(p.cuda, &tensors);
    close_all(&p);
    return result;
}

static void free_memory_decides_no_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *lack, *message;
    } cases[] = {{NULL, "MB of its memory for scratch"},
                 {"plan-memory", "cuDNN has no memory"},
                 {"execute-memory", "cuDNN has no memory"}};
    const uint64_t seed = *random_state();
    float *with_plenty = result_with_plenty(seed);
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) { /* plainly, and recorded */
        struct pair p = open_with(NULL);
        struct tensors tensors = {.count = 0};
        *random_state() = seed;
        struct work work = {p.cuda, make_problem(p.cuda, &shape, &tensors)};
        struct graph *graph = NULL;
        free(values_of_act(p.cuda, work.problem.out, result_size(&shape))); /* takes its memory before there is none */
        memory_does_not_choose_who_computes(&work, i % 2 ? &graph : NULL, with_plenty, cases[i / 2].lack,
                                            cases[i / 2].message);
        p.cuda->graph_close(p.cuda, graph);
        free_tensors(p.cuda, &tensors);
        close_all(&p);
    }
    free(with_plenty);
}

/* With a fault, every result is right; after its first failure the library is not asked again for this shape. */
static void assert_harmless(const char *fault, int executions_wanted)
{
    struct pair p = open_with(NULL);
    setenv("EMULATED_CUDNN_FAULT", fault, 1);
    int before = executions();
    check(&p, &shape, 1);
    int made = plans();
    check(&p, &shape, 1);
    assert_int_equal(plans(), made);
    assert_int_equal(executions() - before, executions_wanted);
    assert_non_null(strstr(p.cuda->notice, "cuDNN does not do attention of 200 rows over 256 keys"));
    assert_non_null(strstr(p.cuda->name, "with cuDNN (which refused 1 shape of attention)")); /* receipts say it, too */
    close_all(&p);
}

static void a_library_that_fails_is_replaced_by_our_own_kernel(void **state)
{
    (void)state;
    assert_harmless("engines", 0);
    assert_harmless("order", 0); /* engines that would give other bytes each time */
    assert_harmless("plan", 0);
    assert_harmless("execute", 0);
}

static void a_wrong_result_is_noticed_and_the_plan_not_used_again(void **state)
{
    (void)state;
    assert_harmless("result", 1);
}

static void a_library_that_does_not_open_is_left_alone(void **state)
{
    (void)state;
    setenv("EMULATED_CUDNN_FAULT", "create", 1);
    struct pair p = open_with(NULL);
    assert_null(strstr(p.cuda->name, "cuDNN"));
    close_all(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_library_without_the_files_beside_it_is_not_used), /* the first */
        cmocka_unit_test(both_descriptions_of_attention_agree_with_the_cpu),
        cmocka_unit_test(the_backend_says_that_it_is_there),
        cmocka_unit_test(versions_that_are_too_old_or_known_to_be_wrong_are_not_used),
        cmocka_unit_test(problems_that_are_not_for_the_library_are_our_own),
        cmocka_unit_test(prompts_of_any_length_share_a_plan),
        cmocka_unit_test(several_problems_of_one_call_take_turns),
        cmocka_unit_test(the_same_problem_gives_the_same_bytes),
        cmocka_unit_test(recorded_work_plays_the_library_too),
        cmocka_unit_test(a_library_that_cannot_be_recorded_is_used_plainly),
        cmocka_unit_test(free_memory_decides_no_bytes),
        cmocka_unit_test(a_library_that_fails_is_replaced_by_our_own_kernel),
        cmocka_unit_test(a_wrong_result_is_noticed_and_the_plan_not_used_again),
        cmocka_unit_test(a_library_that_does_not_open_is_left_alone),
    };
    return cmocka_run_group_tests(tests, choose_library, NULL);
}
