/* test_message.c: the codec: the vectors shared with the Python side, limits, damage, and numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/message.h"

static const char vectors[] = "protocol/vectors"; /* tests run in the repository's root */

static char *read_file(const char *name, const char *extension, size_t *bytes)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s%s", vectors, name, extension);
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s is missing; run the tests in the repository's root", path);
    static char buffer[1 << 17];
    *bytes = fread(buffer, 1, sizeof buffer, file);
    fclose(file);
    char *copy = malloc(*bytes + 1); /* exact size, so that a sanitizer sees a read beyond it */
    assert_non_null(copy);
    memcpy(copy, buffer, *bytes);
    copy[*bytes] = '\0';
    return copy;
}

static void assert_tensor(const struct message *message, const cJSON *expected)
{
    const struct tensor_view *tensor = message_tensor(message, expected->string);
    if (!tensor)
        fail_msg("tensor %s is missing", expected->string);
    assert_string_equal(dtype_name(tensor->dtype), json_text(expected, "dtype"));
    const cJSON *shape = cJSON_GetObjectItem(expected, "shape");
    assert_int_equal(tensor->dimensions, cJSON_GetArraySize(shape));
    for (int i = 0; i < tensor->dimensions; i++)
        assert_int_equal(tensor->shape[i], cJSON_GetArrayItem(shape, i)->valueint);
    const char *hex = json_text(expected, "hex");
    assert_int_equal(tensor->bytes * 2, strlen(hex));
    for (uint64_t i = 0; i < tensor->bytes; i++) {
        unsigned value;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &value), 1);
        assert_int_equal(((const uint8_t *)tensor->data)[i], value);
    }
}

static void check_vector(const char *name)
{
    size_t bytes, expected_bytes;
    char *data = read_file(name, ".safetensors", &bytes);
    char *expected_text = read_file(name, ".json", &expected_bytes);
    cJSON *expected = cJSON_Parse(expected_text);
    assert_non_null(expected);
    struct message *message;
    struct error error = {0};
    int status = message_parse(&message, data, bytes, 0, &error);
    if (cJSON_IsTrue(cJSON_GetObjectItem(expected, "good"))) {
        if (status != 0)
            fail_msg("%s: %s", name, error.text);
        if (!cJSON_Compare(message_envelope(message), cJSON_GetObjectItem(expected, "envelope"), true))
            fail_msg("%s: another envelope than expected", name);
        const cJSON *tensors = cJSON_GetObjectItem(expected, "tensors"), *tensor;
        assert_int_equal(message_tensor_count(message), cJSON_GetArraySize(tensors));
        cJSON_ArrayForEach(tensor, tensors)
        {
            assert_tensor(message, tensor);
        }
        message_close(message);
    } else {
        if (status != ERROR_BAD_REQUEST && status != ERROR_TOO_LARGE)
            fail_msg("%s: expected a refusal (%s), got %d", name, json_text(expected, "why"), status);
        assert_int_equal(error.code, status);
        assert_int_not_equal(strlen(error.text), 0);
    }
    cJSON_Delete(expected);
    free(expected_text);
    free(data);
}

static void every_shared_vector_is_understood_or_refused(void **state)
{
    (void)state;
    DIR *folder = opendir(vectors);
    assert_non_null(folder);
    int checked = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        char *extension = strstr(entry->d_name, ".safetensors");
        if (!extension)
            continue;
        *extension = '\0';
        check_vector(entry->d_name);
        checked++;
    }
    closedir(folder);
    assert_true(checked >= 30);
}

/* A message with a tensor, in a buffer of exactly its size. */
static void *make_message(uint64_t *bytes)
{
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    const struct tensor_view tensor = {
        .name = "noise", .dtype = DTYPE_F32, .dimensions = 2, .shape = {2, 3}, .data = values, .bytes = sizeof values};
    cJSON *envelope =
        cJSON_Parse("{\"protocol\":2,\"request\":\"submit\",\"params\":{\"prompt\":\"ein \\\"Fuchs\\\" \\u96ea\"}}");
    void *data;
    struct error error;
    assert_int_equal(message_encode(&data, bytes, envelope, &tensor, 1, &error), 0);
    cJSON_Delete(envelope);
    return data;
}

static void a_message_comes_back_as_it_was(void **state)
{
    (void)state;
    uint64_t bytes;
    void *data = make_message(&bytes);
    struct message *message;
    struct error error;
    assert_int_equal(message_parse(&message, data, bytes, bytes, &error), 0);
    const cJSON *params = cJSON_GetObjectItem(message_envelope(message), "params");
    assert_string_equal(json_text(params, "prompt"), "ein \"Fuchs\" \xe9\x9b\xaa");
    assert_null(json_text(params, "absent"));
    const struct tensor_view *tensor = message_tensor(message, "noise");
    assert_true(tensor_is(tensor, DTYPE_F32, 2, (uint64_t[]){2, 3}));
    assert_int_equal((uintptr_t)((const char *)tensor->data - (const char *)data) % 8, 0);
    assert_null(message_tensor(message, "source"));
    message_adopt(message, data, free);
    message_close(message);
}

static void a_message_cut_anywhere_is_refused(void **state)
{
    (void)state;
    uint64_t bytes;
    void *data = make_message(&bytes);
    for (uint64_t length = 0; length < bytes; length++) {
        void *cut = malloc(length + (length == 0));
        memcpy(cut, data, length);
        struct message *message;
        struct error error;
        assert_int_equal(message_parse(&message, cut, length, 0, &error), ERROR_BAD_REQUEST);
        assert_null(message);
        free(cut);
    }
    free(data);
}

static void a_message_with_any_bit_flipped_is_refused_or_safe(void **state)
{
    (void)state;
    uint64_t bytes;
    unsigned char *data = make_message(&bytes);
    for (uint64_t bit = 0; bit < bytes * 8; bit++) {
        data[bit / 8] ^= (unsigned char)(1u << bit % 8);
        struct message *message;
        struct error error;
        if (message_parse(&message, data, bytes, 0, &error) == 0) {
            for (size_t i = 0; i < message_tensor_count(message); i++) {
                const struct tensor_view *tensor = message_tensor_at(message, i);
                assert_true((const unsigned char *)tensor->data + tensor->bytes <= data + bytes);
            }
            message_close(message);
        }
        data[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    free(data);
}

static void sizes_over_a_limit_are_refused_with_their_numbers(void **state)
{
    (void)state;
    struct message *message;
    struct error error;
    uint64_t bytes;
    void *data = make_message(&bytes);
    assert_int_equal(message_parse(&message, data, bytes, bytes - 1, &error), ERROR_TOO_LARGE);
    assert_non_null(strstr(error.text, "over the limit"));
    free(data);

    char *prompt = malloc(MESSAGE_MAX_ENVELOPE_BYTES + 1);
    assert_non_null(prompt);
    memset(prompt, 'a', MESSAGE_MAX_ENVELOPE_BYTES);
    prompt[MESSAGE_MAX_ENVELOPE_BYTES] = '\0';
    cJSON *envelope = cJSON_CreateObject();
    cJSON_AddStringToObject(envelope, "prompt", prompt);
    assert_int_equal(message_encode(&data, &bytes, envelope, NULL, 0, &error), 0);
    assert_int_equal(message_parse(&message, data, bytes, 0, &error), ERROR_TOO_LARGE);
    assert_non_null(strstr(error.text, "envelope"));
    free(data);
    cJSON_Delete(envelope);

    envelope = cJSON_CreateObject(); /* more values than any request has */
    cJSON *values = cJSON_AddArrayToObject(envelope, "values");
    for (int i = 0; i <= MESSAGE_MAX_ENVELOPE_VALUES; i++)
        cJSON_AddItemToArray(values, cJSON_CreateNumber(1));
    assert_int_equal(message_encode(&data, &bytes, envelope, NULL, 0, &error), 0);
    assert_int_equal(message_parse(&message, data, bytes, 0, &error), ERROR_TOO_LARGE);
    assert_non_null(strstr(error.text, "JSON values"));
    free(data);
    cJSON_Delete(envelope);
    free(prompt);
}

static void a_prompt_of_100000_emoji_fits(void **state)
{
    (void)state;
    char *prompt = malloc(400001);
    assert_non_null(prompt);
    for (size_t i = 0; i < 100000; i++)
        memcpy(prompt + 4 * i, "\xf0\x9f\xa6\x8a", 4);
    prompt[400000] = '\0';
    cJSON *envelope = cJSON_CreateObject();
    cJSON_AddStringToObject(envelope, "prompt", prompt);
    void *data;
    uint64_t bytes;
    struct error error;
    struct message *message;
    assert_int_equal(message_encode(&data, &bytes, envelope, NULL, 0, &error), 0);
    cJSON_Delete(envelope);
    assert_int_equal(message_parse(&message, data, bytes, 0, &error), 0);
    assert_string_equal(json_text(message_envelope(message), "prompt"), prompt);
    message_close(message);
    free(data);
    free(prompt);
}

static void deep_nesting_is_refused(void **state)
{
    (void)state;
    enum { DEPTH = 20000 };
    char *raw = malloc(2 * DEPTH + 1);
    assert_non_null(raw);
    memset(raw, '[', DEPTH);
    memset(raw + DEPTH, ']', DEPTH);
    raw[2 * DEPTH] = '\0';
    cJSON *envelope = cJSON_CreateObject();
    cJSON_AddItemToObject(envelope, "deep", cJSON_CreateRaw(raw));
    void *data;
    uint64_t bytes;
    struct error error;
    struct message *message;
    assert_int_equal(message_encode(&data, &bytes, envelope, NULL, 0, &error), 0);
    assert_int_equal(message_parse(&message, data, bytes, 0, &error), ERROR_BAD_REQUEST);
    cJSON_Delete(envelope);
    free(data);
    free(raw);
}

static void whole_numbers_are_exact_up_to_64_bits(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        bool good;
        uint64_t value;
    } cases[] = {
        {"0", true, 0},
        {"42", true, 42},
        {"9007199254740991", true, UINT64_C(9007199254740991)},
        {"9007199254740992", false, 0}, /* 2^53: so does 2^53 + 1 read */
        {"9007199254740993", false, 0},
        {"\"9007199254740993\"", true, UINT64_C(9007199254740993)},
        {"9007199254740994", false, 0},
        {"18446744073709551615", false, 0},
        {"\"18446744073709551615\"", true, UINT64_MAX},
        {"\"18446744073709551616\"", false, 0},
        {"\"99999999999999999999\"", false, 0},
        {"\"0\"", true, 0},
        {"\"007\"", true, 7},
        {"\"\"", false, 0},
        {"\" 1\"", false, 0},
        {"\"-1\"", false, 0},
        {"\"+1\"", false, 0},
        {"\"0x1\"", false, 0},
        {"-1", false, 0},
        {"1.5", false, 0},
        {"1e300", false, 0},
        {"1e999", false, 0},
        {"true", false, 0},
        {"null", false, 0},
        {"[]", false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cJSON *item = cJSON_Parse(cases[i].json);
        assert_non_null(item);
        uint64_t value = 7;
        if (json_uint64(item, &value) != cases[i].good)
            fail_msg("%s", cases[i].json);
        if (cases[i].good)
            assert_true(value == cases[i].value);
        cJSON_Delete(item);
    }
    assert_false(json_uint64(NULL, &(uint64_t){0}));
    static const uint64_t values[] = {0, 999999999999999, 1000000000000001, UINT64_C(1) << 53, (UINT64_C(1) << 53) + 1,
                                      UINT64_MAX};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        cJSON *item = json_from_uint64(values[i]);
        char *text = cJSON_PrintUnformatted(item);
        cJSON *again = cJSON_Parse(text);
        uint64_t value;
        assert_true(json_uint64(again, &value));
        assert_true(value == values[i]);
        cJSON_Delete(again);
        cJSON_free(text);
        cJSON_Delete(item);
    }
}

static void job_ids_are_plain(void **state)
{
    (void)state;
    char id[JOB_ID_MAX_BYTES + 2], other[JOB_ID_MAX_BYTES + 1];
    assert_true(job_id_is_valid("a"));
    assert_true(job_id_is_valid("ComfyUI-7.node_12"));
    assert_false(job_id_is_valid(NULL));
    assert_false(job_id_is_valid(""));
    assert_false(job_id_is_valid("a b"));
    assert_false(job_id_is_valid("../a"));
    assert_false(job_id_is_valid("\xc3\xa4"));
    memset(id, 'x', sizeof id);
    id[JOB_ID_MAX_BYTES + 1] = '\0';
    assert_false(job_id_is_valid(id));
    id[JOB_ID_MAX_BYTES] = '\0';
    assert_true(job_id_is_valid(id));
    job_id_make(id);
    job_id_make(other);
    assert_true(job_id_is_valid(id));
    assert_string_not_equal(id, other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shared_vector_is_understood_or_refused),
        cmocka_unit_test(a_message_comes_back_as_it_was),
        cmocka_unit_test(a_message_cut_anywhere_is_refused),
        cmocka_unit_test(a_message_with_any_bit_flipped_is_refused_or_safe),
        cmocka_unit_test(sizes_over_a_limit_are_refused_with_their_numbers),
        cmocka_unit_test(a_prompt_of_100000_emoji_fits),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(whole_numbers_are_exact_up_to_64_bits),
        cmocka_unit_test(job_ids_are_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
