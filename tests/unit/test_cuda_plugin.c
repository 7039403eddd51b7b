/* How the CUDA plugin is found, refused and preferred. */
#include "cuda_fixture.h"

#include "kernels/backend.h"

static char folder[] = "/tmp/lance-plugin-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

/* Name a library of the build folder, or no library at all. */
static void choose(const char *file)
{
    unsetenv("LANCED_CUDA_PLUGIN");
    if (!file)
        return;
    char path[4200];
    choose_emulated_plugin();
    snprintf(path, sizeof path, "%s", getenv("LANCED_CUDA_PLUGIN"));
    snprintf(strrchr(path, '/'), 100, "/%s", file);
    setenv("LANCED_CUDA_PLUGIN", path, 1);
}

static void assert_refused(int code, const char *because)
{
    struct kernels *k = NULL;
    struct error error = {0};
    assert_int_equal(kernels_cuda_load(&k, 0, &error), code);
    assert_null(k);
    if (!strstr(error.text, because))
        fail_msg("\"%s\" does not say \"%s\"", error.text, because);
}

static void without_a_plugin_one_is_told_how_to_get_it(void **state)
{
    (void)state;
    choose(NULL);
    assert_refused(ERROR_NOT_FOUND, "make cuda");
}

static void a_plugin_that_was_named_but_is_not_there_is_an_error(void **state)
{
    (void)state;
    setenv("LANCED_CUDA_PLUGIN", "/nowhere/liblanced_cuda.so", 1);
    assert_refused(ERROR_NOT_FOUND, "/nowhere/liblanced_cuda.so");
}

static void a_file_that_is_no_library_is_refused(void **state)
{
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "%s/plugin.so", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("not a library", file);
    fclose(file);
    setenv("LANCED_CUDA_PLUGIN", path, 1);
    assert_refused(ERROR_BAD_FILE, "cannot be loaded");
    unlink(path);
}

static void a_plugin_built_for_another_version_is_refused_before_it_is_used(void **state)
{
    (void)state;
    choose("liblanced_cuda_stale.so");
    assert_refused(ERROR_BAD_FILE, "another version");
}

static void a_card_that_is_not_there_is_named(void **state)
{
    (void)state;
    choose("liblanced_cuda_emulated.so");
    struct kernels *k = NULL;
    struct error error = {0};
    assert_int_equal(kernels_cuda_load(&k, 7, &error), ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "no CUDA card 7"));
    setenv("LANCED_EMULATION_CARDS", "0", 1);
    assert_refused(ERROR_UNSUPPORTED, "no CUDA card");
    unsetenv("LANCED_EMULATION_CARDS");
}

/* Which backend a choice gives; its name, and why it is not CUDA. */
static void opens(enum backend choice, const char *name, const char *why)
{
    struct kernels *k = NULL;
    struct error why_not, error = {0};
    assert_int_equal(backend_open(&k, &(struct backend_options){.backend = choice, .threads = 1}, &why_not, &error), 0);
    assert_non_null(strstr(k->name, name));
    assert_non_null(strstr(why_not.text, why));
    assert_int_equal(why_not.code != 0, *why != '\0');
    k->close(k);
}

static void auto_takes_the_card_where_there_is_one_and_else_the_cpu_and_says_why(void **state)
{
    (void)state;
    choose("liblanced_cuda_emulated.so");
    opens(BACKEND_AUTO, "cuda:emulated card 0", "");
    opens(BACKEND_CPU, "cpu", "");
    setenv("LANCED_EMULATION_CARDS", "0", 1);
    opens(BACKEND_AUTO, "cpu", "no CUDA card");
    unsetenv("LANCED_EMULATION_CARDS");
    choose("liblanced_cuda_stale.so");
    opens(BACKEND_AUTO, "cpu", "another version");
}

static void every_operator_of_the_backend_is_there(void **state)
{
    (void)state;
    choose("liblanced_cuda_emulated.so");
    struct kernels *k = NULL;
    struct error error = {0};
    assert_int_equal(kernels_cuda_load(&k, 0, &error), 0);
    void (*functions[(sizeof *k - offsetof(struct kernels, close)) / sizeof(void (*)(void))])(void);
    memcpy(functions, (const char *)k + offsetof(struct kernels, close), sizeof functions);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (!functions[i])
            fail_msg("function %zu of struct kernels, counted from close, is missing", i);
    assert_int_equal(k->act_bytes, 2);
    assert_false(k->host_memory);
    assert_true(k->memory_available(k) > 0);
    k->close(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_plugin_one_is_told_how_to_get_it),
        cmocka_unit_test(a_plugin_that_was_named_but_is_not_there_is_an_error),
        cmocka_unit_test(a_file_that_is_no_library_is_refused),
        cmocka_unit_test(a_plugin_built_for_another_version_is_refused_before_it_is_used),
        cmocka_unit_test(a_card_that_is_not_there_is_named),
        cmocka_unit_test(auto_takes_the_card_where_there_is_one_and_else_the_cpu_and_says_why),
        cmocka_unit_test(every_operator_of_the_backend_is_there),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
