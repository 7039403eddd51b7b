/* A card that fails for good, as after an illegal memory access: a program of its own, since nothing can be done with
 * such a card any more. Emulated only. */
#include "cuda_fixture.h"

static void a_card_that_failed_is_told_from_one_that_has_no_memory(void **state)
{
    (void)state;
    if (getenv("LANCED_CUDA_PLUGIN"))
        skip(); /* no way to break a real one */
    struct kernels *k = NULL;
    struct error error = {0};
    float x[64] = {1.0f}, back[64];
    void *memory = NULL;
    choose_emulated_plugin();
    setenv("LANCED_EMULATION_FAILS", "2:each_kernel", 1);
    assert_int_equal(kernels_cuda_load(&k, 0, &error), 0);
    act *values = act_with(k, x, 64);
    assert_int_equal(k->memory_alloc(k, &memory, (size_t)1 << 45, &error), ERROR_NO_MEMORY);
    assert_false(k->lost);

    k->silu(k, values, 64, values);
    if (k->sync(k, &error))
        fail_msg("%s", error.text);
    k->silu(k, values, 64, values);
    k->add(k, values, 64, values);
    assert_int_equal(k->sync(k, &error), ERROR_INTERNAL);
    assert_true(k->lost);
    assert_non_null(strstr(error.text, "emulated card 0"));
    assert_non_null(strstr(error.text, "illegal memory access"));
    assert_non_null(strstr(error.text, "each_kernel"));

    k->download(k, back, values, 64);
    for (int i = 0; i < 64; i++)
        assert_true(back[i] == 0.0f);
    assert_int_equal(k->sync(k, &error), ERROR_INTERNAL);
    assert_int_equal(k->memory_alloc(k, &memory, 64, &error), ERROR_INTERNAL);
    assert_null(memory);
    k->memory_free(k, values);
    k->close(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_card_that_failed_is_told_from_one_that_has_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
