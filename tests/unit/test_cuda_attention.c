/* Attention of the CUDA backend beside the CPU's. */
#include "tests/unit/attention_fixture.h"

static void check_each(struct pair *p, const struct shape *shapes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        check(p, &shapes[i], 1);
}
#define CHECK_EACH(p, shapes) check_each(p, shapes, sizeof shapes / sizeof *shapes)

static void full_attention_agrees_with_the_cpu(void **state)
{
    static const struct shape shapes[] = {
        {.q_rows = 1, .heads = 1, .kv_heads = 1, .head_dim = 8, .segments = 1, .segment_rows = {1}, .amplitude = 1},
        {.q_rows = 70, .heads = 4, .kv_heads = 2, .head_dim = 32, .segments = 1, .segment_rows = {70}, .amplitude = 3},
        {.q_rows = 131, .heads = 3, .kv_heads = 3, .head_dim = 80, .segments = 1, .segment_rows = {131},
         .amplitude = 2},
        {.q_rows = 50, .heads = 8, .kv_heads = 2, .head_dim = 128, .segments = 1, .segment_rows = {200},
         .amplitude = 2},
        {.q_rows = 40, .heads = 2, .kv_heads = 1, .head_dim = 48, .segments = 1, .segment_rows = {65}, .amplitude = 1},
        {.q_rows = 17, .heads = 1, .kv_heads = 1, .head_dim = 96, .segments = 1, .segment_rows = {64}, .amplitude = 1},
    };
    CHECK_EACH(*state, shapes);
}

static void causal_queries_end_with_the_last_segment(void **state)
{
    static const struct shape shapes[] = {
        {.q_rows = 9, .heads = 4, .kv_heads = 2, .head_dim = 32, .causal = true, .segments = 1, .segment_rows = {9},
         .amplitude = 1},
        {.q_rows = 150, .heads = 4, .kv_heads = 2, .head_dim = 32, .causal = true, .segments = 2,
         .segment_rows = {129, 150}, .amplitude = 2},
        {.q_rows = 40, .heads = 4, .kv_heads = 4, .head_dim = 16, .causal = true, .segments = 3,
         .segment_rows = {50, 3, 60}, .amplitude = 2},
        {.q_rows = 100, .heads = 16, .kv_heads = 2, .head_dim = 128, .causal = true, .segments = 1,
         .segment_rows = {100},
         .amplitude = 2},
    };
    CHECK_EACH(*state, shapes);
}

static void segments_act_as_one_sequence_even_when_some_are_empty(void **state)
{
    static const struct shape shapes[] = {
        {.q_rows = 65, .heads = 4, .kv_heads = 2, .head_dim = 32, .segments = 4, .segment_rows = {0, 37, 0, 100},
         .amplitude = 2},
        {.q_rows = 20, .heads = 2, .kv_heads = 1, .head_dim = 128, .segments = 2, .segment_rows = {191, 2},
         .amplitude = 2},
        {.q_rows = 30, .heads = 2, .kv_heads = 2, .head_dim = 64, .causal = true, .segments = 6,
         .segment_rows = {1, 2, 3, 90, 5, 30}, .amplitude = 2},
    };
    CHECK_EACH(*state, shapes);
}

/* Few rows and many keys: several blocks share the keys of one row. */
static void a_decoded_token_sees_all_keys_before_it(void **state)
{
    static const struct shape shapes[] = {
        {.q_rows = 1, .heads = 16, .kv_heads = 2, .head_dim = 128, .causal = true, .segments = 1, .segment_rows = {700},
         .amplitude = 2},
        {.q_rows = 1, .heads = 4, .kv_heads = 2, .head_dim = 32, .causal = true, .segments = 3,
         .segment_rows = {301, 40, 130}, .amplitude = 2},
        {.q_rows = 3, .heads = 4, .kv_heads = 1, .head_dim = 80, .causal = true, .segments = 2, .segment_rows = {256,
         257},
         .amplitude = 2},
        {.q_rows = 20, .heads = 1, .kv_heads = 1, .head_dim = 64, .causal = true, .segments = 1, .segment_rows = {530},
         .amplitude = 2},
        {.q_rows = 5, .heads = 1, .kv_heads = 1, .head_dim = 7, .causal = true, .segments = 1, .segment_rows = {300},
         .amplitude = 2},
    };
    CHECK_EACH(*state, shapes);
}

static void tensors_may_begin_at_any_element_and_have_any_width(void **state)
{
    static const struct shape shapes[] = {
        {.q_rows = 33, .heads = 2, .kv_heads = 1, .head_dim = 17, .segments = 1, .segment_rows = {130}, .amplitude = 1},
        {.q_rows = 20, .heads = 4, .kv_heads = 2, .head_dim = 32, .segments = 2, .segment_rows = {30, 50},
         .amplitude = 1,
         .skip = 3},
        {.q_rows = 70, .heads = 2, .kv_heads = 2, .head_dim = 80, .causal = true, .segments = 1, .segment_rows = {70},
         .amplitude = 1, .skip = 4},
        {.q_rows = 10, .heads = 1, .kv_heads = 1, .head_dim = 4, .segments = 1, .segment_rows = {10}, .amplitude = 1},
        {.q_rows = 10, .heads = 1, .kv_heads = 1, .head_dim = 127, .segments = 1, .segment_rows = {70}, .amplitude = 1},
    };
    CHECK_EACH(*state, shapes);
}

static void wide_heads_as_in_the_autoencoder_agree_with_the_cpu(void **state)
{
    static const struct shape shapes[] = {
        {.q_rows = 40, .heads = 1, .kv_heads = 1, .head_dim = 1024, .segments = 1, .segment_rows = {100},
         .amplitude = 1},
        {.q_rows = 35, .heads = 1, .kv_heads = 1, .head_dim = 640, .segments = 1, .segment_rows = {35}, .amplitude = 2},
        {.q_rows = 19, .heads = 4, .kv_heads = 2, .head_dim = 136, .causal = true, .segments = 2, .segment_rows = {37,
         40},
         .amplitude = 2},
        {.q_rows = 5, .heads = 1, .kv_heads = 1, .head_dim = 131, .segments = 1, .segment_rows = {9}, .amplitude = 2,
         .skip = 1},
    };
    CHECK_EACH(*state, shapes);
}

static void large_scores_do_not_overflow(void **state)
{
    static const struct shape shapes[] = {
        {.q_rows = 60, .heads = 2, .kv_heads = 2, .head_dim = 16, .segments = 1, .segment_rows = {300},
         .amplitude = 30},
        {.q_rows = 1, .heads = 2, .kv_heads = 2, .head_dim = 16, .segments = 1, .segment_rows = {600}, .amplitude = 30},
        {.q_rows = 20, .heads = 1, .kv_heads = 1, .head_dim = 144, .segments = 1, .segment_rows = {70},
         .amplitude = 30},
    };
    CHECK_EACH(*state, shapes);
}

/* As the windows of the vision transformer, and all kinds of problems beside each other. */
static void many_problems_in_one_call_do_not_disturb_each_other(void **state)
{
    enum { COUNT = 60 };
    struct shape shapes[COUNT];
    for (int i = 0; i < COUNT; i++)
        shapes[i] = (struct shape){.q_rows = 1 + i * 7 % 66, .heads = 4, .kv_heads = 1 << i % 3,
                                   .head_dim = i % 10 == 9 ? 64 : i % 17 == 16 ? 20 : 16, .segments = 1,
                                   .segment_rows = {1 + i * 5 % 71}, .amplitude = 1};
    shapes[30].head_dim = 160;
    check(*state, shapes, COUNT);
    for (int i = 0; i < 20; i++)
        shapes[i] = (struct shape){.q_rows = 64, .heads = 2, .kv_heads = 2, .head_dim = 80, .segments = 1,
                                   .segment_rows = {64}, .amplitude = 2};
    check(*state, shapes, 20);
}

/* On a card also those that cuDNN does. */
static void blocks_of_many_rows_agree_with_the_cpu(void **state)
{
    struct pair *p = *state;
    static const struct shape small[] = {
        {.q_rows = 150, .heads = 4, .kv_heads = 2, .head_dim = 64, .segments = 3, .segment_rows = {37, 2, 150},
         .amplitude = 2},
    };
    static const struct shape large[] = {
        {.q_rows = 2304, .heads = 16, .kv_heads = 2, .head_dim = 128, .segments = 3, .segment_rows = {67, 2, 2304},
         .amplitude = 2},
        {.q_rows = 2304, .heads = 16, .kv_heads = 2, .head_dim = 128, .segments = 3, .segment_rows = {11, 2, 2304},
         .amplitude = 2},
        {.q_rows = 513, .heads = 4, .kv_heads = 4, .head_dim = 64, .segments = 1, .segment_rows = {1024},
         .amplitude = 4},
        {.q_rows = 3001, .heads = 8, .kv_heads = 1, .head_dim = 128, .segments = 2, .segment_rows = {17000, 3001},
         .amplitude = 1},
    };
    CHECK_EACH(p, small);
    if (on_card(p))
        CHECK_EACH(p, large);
    assert_string_equal(p->cuda->notice, ""); /* cuDNN, where it is there, refused nothing */
}

static void the_same_attention_gives_the_same_bytes(void **state)
{
    struct pair *p = *state;
    static const struct shape shapes[] = {
        {.q_rows = 70, .heads = 4, .kv_heads = 2, .head_dim = 32, .segments = 1, .segment_rows = {90}, .amplitude = 2},
        {.q_rows = 1, .heads = 4, .kv_heads = 1, .head_dim = 64, .segments = 1, .segment_rows = {600}, .amplitude = 2},
        {.q_rows = 1024, .heads = 16, .kv_heads = 2, .head_dim = 128, .segments = 1, .segment_rows = {1100},
         .amplitude = 2}, /* the last one on a card alone */
    };
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes - !on_card(p); s++) {
        struct tensors tensors = {.count = 0};
        struct attention problem = make_problem(p->cuda, &shapes[s], &tensors);
        float *result[2];
        for (int i = 0; i < 2; i++) {
            p->cuda->attention(p->cuda, &problem, 1);
            result[i] = values_of_act(p->cuda, problem.out, result_size(&shapes[s]));
        }
        assert_memory_equal(result[0], result[1], result_size(&shapes[s]) * sizeof(float));
        free(result[0]), free(result[1]);
        free_tensors(p->cuda, &tensors);
    }
}

static void heads_wider_than_the_card_takes_are_refused(void **state)
{
    struct pair *p = *state;
    struct error error = {0};
    const struct shape shape = {.q_rows = 1, .heads = 1, .kv_heads = 1, .head_dim = 1032, .segments = 1,
                                .segment_rows = {1}, .amplitude = 1};
    struct tensors tensors = {.count = 0};
    struct attention problem = make_problem(p->cuda, &shape, &tensors);
    p->cuda->attention(p->cuda, &problem, 1);
    assert_int_equal(p->cuda->sync(p->cuda, &error), ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "1032"));
    free_tensors(p->cuda, &tensors);
}

/* More problems than a launch takes, their keys cut into parts, and no scratch memory for the parts. */
static void a_full_card_is_an_error_and_no_more(void **state)
{
    enum { COUNT = 9 };
    const struct shape shape = {
        .q_rows = 1, .heads = 1, .kv_heads = 1, .head_dim = 16, .segments = 1, .segment_rows = {600}, .amplitude = 1};
    struct pair *p = *state;
    if (on_card(p))
        skip(); /* which has memory enough */
    struct kernels *k = NULL;
    struct error error = {0};
    assert_int_equal(setenv("LANCED_EMULATION_MULTIPROCESSORS", "64", 1), 0);
    if (kernels_cuda_load(&k, 0, &error))
        fail_msg("%s", error.text);
    assert_int_equal(unsetenv("LANCED_EMULATION_MULTIPROCESSORS"), 0);
    const float one = 1.0f;
    k->memory_free(k, act_with(k, &one, 1)); /* nothing in use: the scratch memory goes, too */
    struct tensors tensors[COUNT] = {{.count = 0}};
    struct attention problems[COUNT];
    for (int i = 0; i < COUNT; i++)
        problems[i] = make_problem(k, &shape, &tensors[i]);

    assert_int_equal(setenv("LANCED_EMULATION_MEMORY", "1", 1), 0);
    k->attention(k, problems, COUNT);
    assert_int_equal(k->sync(k, &error), ERROR_NO_MEMORY);
    assert_int_equal(unsetenv("LANCED_EMULATION_MEMORY"), 0);
    k->attention(k, problems, COUNT);
    assert_int_equal(k->sync(k, &error), 0);

    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < tensors[i].count; j++)
            k->memory_free(k, tensors[i].memory[j]);
    k->close(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_attention_agrees_with_the_cpu),
        cmocka_unit_test(causal_queries_end_with_the_last_segment),
        cmocka_unit_test(segments_act_as_one_sequence_even_when_some_are_empty),
        cmocka_unit_test(a_decoded_token_sees_all_keys_before_it),
        cmocka_unit_test(tensors_may_begin_at_any_element_and_have_any_width),
        cmocka_unit_test(wide_heads_as_in_the_autoencoder_agree_with_the_cpu),
        cmocka_unit_test(large_scores_do_not_overflow),
        cmocka_unit_test(many_problems_in_one_call_do_not_disturb_each_other),
        cmocka_unit_test(blocks_of_many_rows_agree_with_the_cpu),
        cmocka_unit_test(the_same_attention_gives_the_same_bytes),
        cmocka_unit_test(heads_wider_than_the_card_takes_are_refused),
        cmocka_unit_test(a_full_card_is_an_error_and_no_more),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
