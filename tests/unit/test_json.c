/* test_json.c: JSON that is read within bounds, and made where memory runs out at every place in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/json.h"
#include "base/utf8.h"

static const struct json_limits limits = {.bytes = 1000, .values = 8, .over = ERROR_TOO_LARGE, .bad = ERROR_BAD_FILE};

static void assert_refused(const char *text, size_t bytes, int code, const char *words)
{
    cJSON *tree;
    struct error error = {0};
    assert_int_equal(json_parse(&tree, text, bytes, &limits, "notes.json", &error), code);
    assert_null(tree);
    if (!strstr(error.text, words) || strncmp(error.text, "notes.json: ", 12) != 0)
        fail_msg("\"%s\" does not say \"%s\"", error.text, words);
}

#define REFUSED(text, code, words) assert_refused(text, sizeof text - 1, code, words)

static void text_beyond_its_bounds_is_refused_before_it_is_parsed(void **state)
{
    (void)state;
    static char long_text[1001], deep_text[400];
    memset(long_text, ' ', sizeof long_text);
    assert_refused(long_text, sizeof long_text, ERROR_TOO_LARGE, "1001 bytes; at most 1000 are accepted");
    REFUSED("[1,2,3,4,5,6,7,8,9", ERROR_TOO_LARGE, "more than 8 JSON values");
    REFUSED("[[[[[[[[[", ERROR_TOO_LARGE, "more than 8 JSON values");
    memset(deep_text, '[', sizeof deep_text);
    cJSON *tree;
    struct error error;
    const struct json_limits many = {.bytes = 1000, .values = 1000, .over = ERROR_TOO_LARGE, .bad = ERROR_BAD_FILE};
    assert_int_equal(json_parse(&tree, deep_text, sizeof deep_text, &many, "notes.json", &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "nested more than 100 levels deep at byte 100"));
}

static void what_a_string_holds_counts_for_nothing(void **state)
{
    (void)state;
    static const char text[] = "{\"a,[{\\\"\":\",,,,,,,,,,[[[[[[[[[[\"}";
    cJSON *tree;
    struct error error;
    assert_int_equal(json_parse(&tree, text, sizeof text - 1, &limits, "notes.json", &error), 0);
    assert_string_equal(json_text(tree, "a,[{\""), ",,,,,,,,,,[[[[[[[[[[");
    cJSON_Delete(tree);
}

static void text_that_would_be_misread_is_refused_with_the_place(void **state)
{
    (void)state;
    REFUSED("", ERROR_BAD_FILE, "not valid JSON");
    REFUSED("{\"a\":1", ERROR_BAD_FILE, "cut off at byte 6");
    REFUSED("{\"a\":1}}", ERROR_BAD_FILE, "not valid JSON at byte 7 of 8");
    REFUSED("{\"a\":\"b\\u0000c\"}", ERROR_BAD_FILE, "a NUL character at byte 7, in \"a\"");
    REFUSED("{\"a\":\"b\0c\"}", ERROR_BAD_FILE, "a NUL character at byte 7, in \"a\"");
    REFUSED("{\"a\":{\"b\":1,\"c\" : \"\\u0000\"}}", ERROR_BAD_FILE, "a NUL character at byte 19, in \"c\"");
    REFUSED("{\"a\":[\"\\u0000\"]}", ERROR_BAD_FILE, "a NUL character at byte 7, in \"a\"");
    REFUSED("{\"a\":1,\"b\\u0000c\":2}", ERROR_BAD_FILE, "a NUL character at byte 9"); /* in a name itself */
    REFUSED("{\"\xff\":\"\\u0000\"}", ERROR_BAD_FILE, "a NUL character at byte 6"); /* after a name that is no text */
    REFUSED("{}\0", ERROR_BAD_FILE, "a NUL character at byte 2");
    REFUSED("{\"a\":\"\xff\"}", ERROR_BAD_FILE, "not valid UTF-8");
}

/* A page that ends with the text, and after which nothing may be read. */
static void no_byte_behind_the_text_is_read(void **state)
{
    (void)state;
    static const char *const texts[] = {"{\"a\":1}", "{\"a\":1", "[1,2", "12", "\"a", "\"a\\", "\"a\\u00", "tru", ""};
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(pages, MAP_FAILED);
    assert_int_equal(mprotect(pages + page, page, PROT_NONE), 0);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const size_t bytes = strlen(texts[i]);
        memcpy(pages + page - bytes, texts[i], bytes);
        cJSON *tree;
        struct error error;
        int code = json_parse(&tree, pages + page - bytes, bytes, &limits, "notes.json", &error);
        assert_int_equal(code, i == 0 || i == 3 ? 0 : ERROR_BAD_FILE);
        cJSON_Delete(tree);
    }
    munmap(pages, 2 * page);
}

static void what_is_printed_is_what_cjson_prints(void **state)
{
    (void)state;
    static const double numbers[] = {0, -0.0, 1, -1, 7, 10, 255, 4096, -65536, 999999999999999, 1e15, -1e15, 1e16,
                                     0x1p53, 0.1, 0.5, -2.75, 1.0 / 3, 1e-7, 1e300, 5e-324, 1.7976931348623157e308,
                                     123456.789, 0.1 + 0.2, NAN, INFINITY, -INFINITY};
    cJSON *tree = json_object();
    json_add(tree, "numbers", json_from_numbers(numbers, sizeof numbers / sizeof numbers[0]));
    cJSON *texts = json_add_array(tree, "texts \"\\/\n");
    char all[128] = "";
    for (int i = 0; i < 127; i++)
        all[i] = (char)(i + 1);
    json_append_text(texts, all);
    json_append_text(texts, "");
    json_append_text(texts, "\xc3\xa4\xe2\x82\xac \xf0\x9f\xa6\x8a");
    json_append(texts, json_object());
    json_append(texts, json_from_bool(false));
    for (int i = 0; i < 300; i++) /* more than there is room for at first */
        json_append_number(texts, i * 1e11);
    char *text = json_print(tree), *by_cjson = cJSON_PrintUnformatted(tree);
    assert_non_null(text);
    assert_string_equal(text, by_cjson);
    cJSON_free(text);
    cJSON_free(by_cjson);
    cJSON_Delete(tree);
}

static void text_is_utf8_wherever_a_character_lies(void **state)
{
    (void)state;
    for (size_t at = 0; at < 20; at++) {
        char text[24] = "aaaaaaaaaaaaaaaaaaaaaaa";
        memcpy(text + at, "\xe2\x82\xac", 3);
        assert_true(utf8_is_valid(text, at + 3));
        assert_true(utf8_is_valid(text, sizeof text));
        assert_false(utf8_is_valid(text, at + 2)); /* cut off */
        text[at + 1] = 'a';
        assert_false(utf8_is_valid(text, sizeof text));
    }
}

/* --- Memory that runs out ---------------------------------------------------------------- */

static int until_failure; /* this many allocations more succeed, and one fails */

static void *allocate(size_t bytes)
{
    return until_failure-- == 0 ? NULL : malloc(bytes);
}

static cJSON *make_tree(void)
{
    cJSON *tree = json_object();
    json_add_text(tree, "text", "a fox");
    json_add_text(tree, "nothing", NULL);
    json_add_number(tree, "number", 1.5);
    json_add_bool(tree, "yes", true);
    json_add(tree, "seed", json_from_uint64(UINT64_MAX));
    cJSON *inner = json_add_object(tree, "inner");
    json_add_null(inner, "null");
    cJSON *list = json_add_array(inner, "list");
    json_append_number(list, 7);
    json_append_text(list, "seven");
    json_append(list, json_from_digits("7.000000000000000000001"));
    json_append(list, json_from_numbers((double[]){0.5, 1}, 2));
    json_append(list, json_from_ints((int[]){1, 2}, 2));
    json_append(list, json_array());
    return tree;
}

static void a_tree_is_printed_whole_or_not_at_all_wherever_memory_runs_out(void **state)
{
    (void)state;
    static const char whole[] =
        "{\"text\":\"a fox\",\"nothing\":null,\"number\":1.5,\"yes\":true,\"seed\":\"18446744073709551615\","
        "\"inner\":{\"null\":null,\"list\":[7,\"seven\",7.000000000000000000001,[0.5,1],[1,2],[]]}}";
    cJSON_InitHooks(&(cJSON_Hooks){allocate, free});
    int failures = 0;
    for (bool done = false; !done; failures++) {
        until_failure = failures;
        cJSON *tree = make_tree();
        const bool ran_out = until_failure < 0;
        assert_int_equal(json_is_complete(tree), !ran_out);
        cJSON *copy = cJSON_Duplicate(tree, true); /* a copy is as incomplete as what it was made of */
        assert_true(!ran_out || !json_is_complete(copy));
        cJSON_Delete(copy);
        char *text = json_print(tree);
        done = until_failure >= 0;
        if (done)
            assert_string_equal(text, whole);
        else if (text) /* only the copy failed */
            assert_false(ran_out);
        cJSON_free(text);
        text = json_print_indented(tree);
        assert_true(!ran_out || !text);
        cJSON_free(text);
        cJSON_Delete(tree);
    }
    cJSON_InitHooks(NULL);
    assert_true(failures > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_beyond_its_bounds_is_refused_before_it_is_parsed),
        cmocka_unit_test(what_a_string_holds_counts_for_nothing),
        cmocka_unit_test(text_that_would_be_misread_is_refused_with_the_place),
        cmocka_unit_test(no_byte_behind_the_text_is_read),
        cmocka_unit_test(what_is_printed_is_what_cjson_prints),
        cmocka_unit_test(text_is_utf8_wherever_a_character_lies),
        cmocka_unit_test(a_tree_is_printed_whole_or_not_at_all_wherever_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
