/* test_tokenizer.c: the tokenizer against the reference's answers: recorded vectors, and
 * thousands of random Unicode texts (tests/golden/make_tokenizer_vectors.py). */
#include "daemon/engine/model/tokenizer/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#define DATA "tests/golden/data/"
#define OFFICIAL DATA "tiny/downloads/Lance_3B"

static struct tokenizer *official;

static int open_official(void **state)
{
    (void)state;
    struct error error;
    if (tokenizer_open(&official, OFFICIAL, &error)) {
        fprintf(stderr, "%s\n", error.text);
        return -1;
    }
    return 0;
}

static int close_official(void **state)
{
    (void)state;
    tokenizer_close(official);
    return 0;
}

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *text = NULL;
    size_t capacity = 0;
    ssize_t length = getdelim(&text, &capacity, '\0', file);
    assert_true(length > 0);
    fclose(file);
    return text;
}

static void expect_encoding(const char *text, const cJSON *expected, const char *where)
{
    struct error error;
    int32_t *ids;
    size_t count;
    if (tokenizer_encode(official, text, &ids, &count, &error))
        fail_msg("%s: %s", where, error.text);
    const cJSON *id = expected->child;
    size_t equal = 0;
    while (id && equal < count && ids[equal] == (int32_t)id->valuedouble) {
        id = id->next;
        equal++;
    }
    if (id || equal != count)
        fail_msg("%s: \"%s\" differs from the reference at token %zu", where, text, equal);
    free(ids);
}

static void expect_decoding(const cJSON *given, const char *expected, const char *where)
{
    struct error error;
    size_t count = (size_t)cJSON_GetArraySize(given), i = 0;
    int32_t *ids = calloc(count + 1, sizeof *ids);
    assert_non_null(ids);
    for (const cJSON *id = given->child; id; id = id->next)
        ids[i++] = (int32_t)id->valuedouble;
    char *text;
    if (tokenizer_decode(official, ids, count, &text, &error))
        fail_msg("%s: %s", where, error.text);
    if (strcmp(text, expected))
        fail_msg("%s: decoded \"%s\", the reference \"%s\"", where, text, expected);
    free(text);
    free(ids);
}

/* Whether the text these ids came from has a NUL inside, which cJSON and C strings cannot hold. */
static bool holds_byte_0(const cJSON *ids)
{
    size_t length;
    const cJSON *id;
    cJSON_ArrayForEach(id, ids)
    {
        const char *bytes = tokenizer_bytes(official, (int32_t)id->valuedouble, &length);
        if (bytes && memchr(bytes, 0, length))
            return true;
    }
    return false;
}

static void recorded_vectors_equal_the_reference(void **state)
{
    (void)state;
    char *text = read_text(DATA "tokenizer_vectors.json");
    cJSON *vectors = cJSON_Parse(text);
    const cJSON *item;
    int encoded = 0, decoded = 0;
    char where[40];
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(vectors, "encode"))
    {
        if (holds_byte_0(cJSON_GetObjectItem(item, "ids")))
            continue;
        snprintf(where, sizeof where, "encode vector %d", encoded++);
        expect_encoding(cJSON_GetObjectItem(item, "text")->valuestring, cJSON_GetObjectItem(item, "ids"), where);
    }
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(vectors, "decode"))
    {
        if (holds_byte_0(cJSON_GetObjectItem(item, "ids")))
            continue;
        snprintf(where, sizeof where, "decode vector %d", decoded++);
        expect_decoding(cJSON_GetObjectItem(item, "ids"), cJSON_GetObjectItem(item, "text")->valuestring, where);
    }
    assert_true(encoded >= 39 && decoded >= 21);
    cJSON_Delete(vectors);
    free(text);
}

static void random_texts_equal_the_reference(void **state)
{
    (void)state;
    FILE *file = fopen(DATA "tokenizer_random.jsonl", "r");
    assert_non_null(file);
    char *line = NULL;
    size_t capacity = 0;
    int number = 0;
    while (getline(&line, &capacity, file) > 0) {
        cJSON *item = cJSON_Parse(line);
        assert_non_null(item);
        char where[40];
        snprintf(where, sizeof where, "tokenizer_random.jsonl:%d", ++number);
        const cJSON *text = cJSON_GetArrayItem(item, 0), *ids = cJSON_GetArrayItem(item, 1);
        const cJSON *decoded = cJSON_GetArrayItem(item, 2);
        if (cJSON_IsString(text))
            expect_encoding(text->valuestring, ids, where);
        expect_decoding(ids, decoded ? decoded->valuestring : text->valuestring, where);
        cJSON_Delete(item);
    }
    assert_true(number >= 2000);
    free(line);
    fclose(file);
}

static void the_official_files_have_151665_tokens(void **state)
{
    (void)state;
    assert_int_equal(tokenizer_size(official), 151665);
    size_t length;
    assert_string_equal(tokenizer_bytes(official, 151656, &length), "<|video_pad|>");
    assert_int_equal(length, 13);
    assert_null(tokenizer_bytes(official, 151665, &length));
    assert_null(tokenizer_bytes(official, -1, &length));
}

static void the_demo_files_load(void **state)
{
    (void)state;
    struct tokenizer *demo;
    struct error error;
    assert_int_equal(tokenizer_open(&demo, "demo/lance-demo", &error), 0);
    assert_int_equal(tokenizer_size(demo), 676);
    int32_t *ids;
    size_t count;
    assert_int_equal(tokenizer_encode(demo, "a red circle 圆<|im_end|>", &ids, &count, &error), 0);
    assert_int_equal(ids[count - 1], 664);
    char *text;
    assert_int_equal(tokenizer_decode(demo, ids, count, &text, &error), 0);
    assert_string_equal(text, "a red circle 圆<|im_end|>");
    free(text);
    free(ids);
    tokenizer_close(demo);
}

static void empty_text_has_no_tokens(void **state)
{
    (void)state;
    int32_t *ids;
    size_t count = 1;
    char *text;
    assert_int_equal(tokenizer_encode(official, "", &ids, &count, NULL), 0);
    assert_null(ids);
    assert_int_equal(count, 0);
    assert_int_equal(tokenizer_decode(official, NULL, 0, &text, NULL), 0);
    assert_string_equal(text, "");
    free(text);
}

static void text_that_is_not_utf8_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"ab\xff", "\xc3", "\xed\xa0\x80", "\xc0\xaf", "\xf4\x90\x80\x80"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct error error;
        int32_t *ids;
        size_t count;
        assert_int_equal(tokenizer_encode(official, texts[i], &ids, &count, &error), ERROR_BAD_REQUEST);
        assert_non_null(strstr(error.text, "UTF-8"));
        assert_null(ids);
    }
}

static void a_byte_0_becomes_a_replacement_character(void **state)
{
    (void)state;
    char *text;
    const int32_t ids[] = {87, 188, 88};
    assert_int_equal(tokenizer_decode(official, ids, 3, &text, NULL), 0);
    assert_string_equal(text, "x\xef\xbf\xbdy");
    free(text);
}

static void an_unknown_id_is_not_decoded(void **state)
{
    (void)state;
    struct error error;
    char *text;
    const int32_t ids[] = {9707, 151665};
    assert_int_equal(tokenizer_decode(official, ids, 2, &text, &error), ERROR_BAD_REQUEST);
    assert_non_null(strstr(error.text, "151665"));
    assert_null(text);
}

/* Texts that would take minutes if anything were quadratic. */
static void long_texts_take_linear_time(void **state)
{
    (void)state;
    static const char *const units[] = {"a",        " ",          "ab ", "\n ", "你",  "\xcc\x81\xcc\xa3",
                                        "<|im_end", "<|im_end|>", "!",   "7",   "qzj", " \xe3\x80\x80"};
    const size_t characters = 1000000;
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        size_t unit = strlen(units[u]), repeats = characters / unit;
        char *text = malloc(repeats * unit + 3);
        assert_non_null(text);
        for (size_t i = 0; i < repeats; i++)
            memcpy(text + i * unit, units[u], unit);
        if (units[u][0] == '\xcc') /* all marks of one class, then all of another: the worst order */
            for (size_t i = 0; i < repeats; i++)
                memcpy(text + 2 * i, i < repeats / 2 ? "\xcc\x81" : "\xcc\xa3", 2), text[2 * i + 2] = '\0';
        else
            strcpy(text + repeats * unit, "x");
        struct timespec start, end;
        int32_t *ids;
        size_t count;
        struct error error = {0};
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
        int code = tokenizer_encode(official, text, &ids, &count, &error);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
        double seconds = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
        if (code)
            fail_msg("unit \"%s\": %s", units[u], error.text);
        print_message("%zu bytes of \"%s\": %.2f s, %zu tokens\n", strlen(text), units[u], seconds, count);
        assert_true(seconds < 20);
        free(ids);
        free(text);
    }
}

/* ---- Damaged files, each in a fresh folder ---- */

struct small_files {
    const char *vocab, *merges, *config; /* NULL: the file is missing */
};

static void write_text(const char *directory, const char *name, const char *text)
{
    char path[120];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    if (!text) {
        unlink(path);
        return;
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void expect_refusal(const char *directory, struct small_files files, const char *file, const char *reason)
{
    write_text(directory, "vocab.json", files.vocab);
    write_text(directory, "merges.txt", files.merges);
    write_text(directory, "tokenizer_config.json", files.config);
    struct tokenizer *tokenizer;
    struct error error = {0};
    assert_int_equal(tokenizer_open(&tokenizer, directory, &error), ERROR_BAD_FILE);
    assert_null(tokenizer);
    if (!strstr(error.text, file) || !strstr(error.text, reason))
        fail_msg("\"%s\" does not speak of %s: %s", error.text, file, reason);
}

/* A vocabulary of the 256 bytes, in the byte alphabet, with `more` before the closing brace. */
static char *byte_vocabulary(const char *more)
{
    char *json = malloc(8192);
    assert_non_null(json);
    char *end = json;
    end += sprintf(end, "{");
    int next = 0x100;
    for (int byte = 0; byte < 256; byte++) {
        int printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
        end += sprintf(end, "%s\"\\u%04x\":%d", byte ? "," : "", printable ? byte : next++, byte);
    }
    sprintf(end, "%s}", more);
    return json;
}

static void damaged_files_are_named(void **state)
{
    (void)state;
    char directory[] = "/tmp/test_tokenizer.XXXXXX";
    assert_non_null(mkdtemp(directory));
    char *vocab = byte_vocabulary(",\"ab\":256"), *twice = byte_vocabulary(",\"ab\":7");
    char *fraction = byte_vocabulary(",\"ab\":256.5"), *space = byte_vocabulary(",\"a b\":256");
    const char *config = "{\"added_tokens_decoder\":{\"300\":{\"content\":\"<|end|>\"}}}";

    expect_refusal(directory, (struct small_files){NULL, "a b\n", config}, "vocab.json", "");
    expect_refusal(directory, (struct small_files){"{\"a\":1", "a b\n", config}, "vocab.json", "cut off");
    expect_refusal(directory, (struct small_files){"[1]", "a b\n", config}, "vocab.json", "not a JSON object");
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\n", page[] = "<!DOCTYPE html>\n";
    expect_refusal(directory, (struct small_files){lfs, "a b\n", config}, "vocab.json", "Git LFS pointer");
    expect_refusal(directory, (struct small_files){page, "a b\n", config}, "vocab.json", "an HTML page");
    expect_refusal(directory, (struct small_files){vocab, lfs, config}, "merges.txt", "Git LFS pointer");
    expect_refusal(directory, (struct small_files){vocab, page, config}, "merges.txt", "an HTML page");
    expect_refusal(directory, (struct small_files){vocab, "a b\n", lfs}, "tokenizer_config.json", "Git LFS pointer");
    expect_refusal(directory, (struct small_files){vocab, "a b\n", page}, "tokenizer_config.json", "an HTML page");
    expect_refusal(directory, (struct small_files){"{} {}", "a b\n", config}, "vocab.json", "not valid JSON");
    expect_refusal(directory, (struct small_files){"{\"a\":1}", "a b\n", config}, "vocab.json", "byte 0x00");
    expect_refusal(directory, (struct small_files){twice, "a b\n", config}, "vocab.json", "id 7 ");
    expect_refusal(directory, (struct small_files){fraction, "a b\n", config}, "vocab.json", "whole number");
    expect_refusal(directory, (struct small_files){space, "a b\n", config}, "vocab.json", "byte alphabet");
    expect_refusal(directory, (struct small_files){vocab, NULL, config}, "merges.txt", "");
    expect_refusal(directory, (struct small_files){vocab, "#version: 0.2\na b\na c\n", config}, "merges.txt", "line 3");
    expect_refusal(directory, (struct small_files){vocab, "ab\n", config}, "merges.txt", "line 1");
    expect_refusal(directory, (struct small_files){vocab, "#version: 0.2\n", config}, "merges.txt", "\"ab\"");
    expect_refusal(directory, (struct small_files){vocab, "a b\n", NULL}, "tokenizer_config.json", "");
    expect_refusal(directory, (struct small_files){vocab, "a b\n", "{}"}, "tokenizer_config.json",
                   "added_tokens_decoder");
    const char *taken = "{\"added_tokens_decoder\":{\"7\":{\"content\":\"<|end|>\"}}}";
    expect_refusal(directory, (struct small_files){vocab, "a b\n", taken}, "tokenizer_config.json", "id 7 ");
    const char *strips = "{\"added_tokens_decoder\":{\"300\":{\"content\":\"x\",\"lstrip\":true}}}";
    expect_refusal(directory, (struct small_files){vocab, "a b\n", strips}, "tokenizer_config.json", "lstrip");

    write_text(directory, "tokenizer_config.json", config);
    struct tokenizer *tokenizer;
    struct error error;
    assert_int_equal(tokenizer_open(&tokenizer, directory, &error), 0);
    int32_t *ids;
    size_t count;
    assert_int_equal(tokenizer_encode(tokenizer, "aab<|end|>", &ids, &count, &error), 0);
    static const int32_t expected[] = {'a', 256, 300};
    assert_int_equal(count, 3);
    assert_memory_equal(ids, expected, sizeof expected);
    free(ids);
    tokenizer_close(tokenizer);

    free(vocab);
    free(twice);
    free(fraction);
    free(space);
    write_text(directory, "vocab.json", NULL);
    write_text(directory, "merges.txt", NULL);
    write_text(directory, "tokenizer_config.json", NULL);
    rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_vectors_equal_the_reference),
        cmocka_unit_test(random_texts_equal_the_reference),
        cmocka_unit_test(the_official_files_have_151665_tokens),
        cmocka_unit_test(the_demo_files_load),
        cmocka_unit_test(empty_text_has_no_tokens),
        cmocka_unit_test(text_that_is_not_utf8_is_refused),
        cmocka_unit_test(a_byte_0_becomes_a_replacement_character),
        cmocka_unit_test(an_unknown_id_is_not_decoded),
        cmocka_unit_test(long_texts_take_linear_time),
        cmocka_unit_test(damaged_files_are_named),
    };
    return cmocka_run_group_tests(tests, open_official, close_official);
}
