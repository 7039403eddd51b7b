/* test_backend.c: which form of the CPU backend the options give (kernels/backend.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/backend.h"

/* The name of the backend that `options` open; "" when they open none. */
static const char *name_of(struct backend_options options, char name[64])
{
    struct kernels *kernels = NULL;
    options.backend = BACKEND_CPU;
    options.threads = 2;
    name[0] = '\0';
    if (backend_open(&kernels, &options, NULL, &(struct error){0}) == 0) {
        assert_true(strlen(kernels->name) < 64);
        strcpy(name, kernels->name);
        kernels->close(kernels);
    }
    return name;
}

/* Both measure, and beside other work either may be off: that they agree is asked for once in a few times. */
static void automatic_precision_takes_bf16_exactly_where_the_advice_to_ask_for_it_is_given(void **state)
{
    (void)state;
    char automatic[64], usual[64];
    const struct backend_options options = {.backend = BACKEND_CPU, .threads = 2};
    bool agree = false;
    for (int tries = 0; tries < 5 && !agree; tries++) {
        struct kernels *kernels = NULL;
        assert_int_equal(backend_open(&kernels, &options, NULL, &(struct error){0}), 0);
        const double gain = backend_bf16_gain(kernels, &options);
        kernels->close(kernels);
        name_of((struct backend_options){.precision = PRECISION_AUTO}, automatic);
        name_of((struct backend_options){.precision = PRECISION_DEFAULT}, usual);
        assert_null(strstr(usual, "bf16"));
        agree = gain > 0.0 ? strstr(automatic, "bf16") != NULL : strcmp(automatic, usual) == 0;
    }
    assert_true(agree);
}

static void a_limit_of_the_instruction_set_keeps_to_float32_and_refuses_bf16_in_words(void **state)
{
    (void)state;
    char limited[64], usual[64];
    name_of((struct backend_options){.isa = ISA_AVX2, .precision = PRECISION_AUTO}, limited);
    name_of((struct backend_options){.isa = ISA_AVX2, .precision = PRECISION_FLOAT32}, usual);
    assert_string_equal(limited, usual);
    struct kernels *kernels = NULL;
    struct error error = {0};
    const struct backend_options options = {.backend = BACKEND_CPU, .isa = ISA_AVX2, .precision = PRECISION_BF16};
    assert_int_equal(backend_open(&kernels, &options, NULL, &error), ERROR_BAD_REQUEST);
    assert_non_null(strstr(error.text, "--isa"));
}

int main(void)
{
    unsetenv("LANCED_ISA");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(automatic_precision_takes_bf16_exactly_where_the_advice_to_ask_for_it_is_given),
        cmocka_unit_test(a_limit_of_the_instruction_set_keeps_to_float32_and_refuses_bf16_in_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
