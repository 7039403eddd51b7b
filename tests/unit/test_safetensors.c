/* Tests of protocol/safetensors.c: what it reads and writes, and that no damaged or hostile file gets through or
 * crashes it (run under the sanitizers too). */
#include "protocol/safetensors.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* A file with this header text and `payload_bytes` bytes of data, in a buffer of exactly its size, so that the address
 * sanitizer sees any step beyond it. */
static uint8_t *make_file(const char *header, size_t payload_bytes, size_t *bytes)
{
    size_t header_bytes = strlen(header);
    *bytes = 8 + header_bytes + payload_bytes;
    uint8_t *file = malloc(*bytes);
    assert_non_null(file);
    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)((uint64_t)header_bytes >> 8 * i);
    memcpy(file + 8, header, header_bytes);
    for (size_t i = 0; i < payload_bytes; i++)
        file[8 + header_bytes + i] = (uint8_t)i;
    return file;
}

static void assert_refused(const char *header, size_t payload_bytes, const char *message)
{
    struct error error = {0};
    struct safetensors *file = NULL;
    size_t bytes;
    uint8_t *data = make_file(header, payload_bytes, &bytes);
    int result = safetensors_parse(&file, data, bytes, "FILE", &error);
    if (result != ERROR_BAD_FILE || file)
        fail_msg("accepted: %s", header);
    if (!strstr(error.text, message) || strncmp(error.text, "FILE: ", 6))
        fail_msg("%s\n  gave: %s\n  not:  %s", header, error.text, message);
    free(data);
}

/* Whatever is accepted must be safe to use: every view inside the buffer, sizes that fit, values readable. */
static void assert_safe(const uint8_t *data, size_t bytes)
{
    struct error error = {0};
    struct safetensors *file = NULL;
    int result = safetensors_parse(&file, data, bytes, "FILE", &error);
    if (result) {
        assert_null(file);
        assert_int_equal(result, ERROR_BAD_FILE);
        assert_true(strlen(error.text) > 0 && !strchr(error.text, '\n'));
        return;
    }
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct tensor_view *tensor = safetensors_at(file, i);
        const uint8_t *begin = tensor->data;
        assert_true(begin >= data && begin <= data + bytes && tensor->bytes <= (uint64_t)(data + bytes - begin));
        assert_int_equal(tensor_elements(tensor) * dtype_bytes(tensor->dtype), tensor->bytes);
        assert_ptr_equal(safetensors_find(file, tensor->name), tensor);
    }
    safetensors_close(file);
}

static const char small_header[] =
    "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]},"
    "\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[8,11]}}  ";
enum { SMALL_PAYLOAD = 11 };

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    const float numbers[] = {1.5f, -2.0f, 0.25f, 8.0f, 0.0f, -1.0f};
    const uint8_t bytes[] = {1, 2, 3};
    const struct tensor_view tensors[] = {
        {.name = "pixels \"x\" \u00e9", .dtype = DTYPE_U8, .dimensions = 1, .shape = {3}, .data = bytes, .bytes = 3},
        {.name = "m", .dtype = DTYPE_F32, .dimensions = 2, .shape = {2, 3}, .data = numbers, .bytes = 24},
        {.name = "scalar", .dtype = DTYPE_F32, .data = numbers, .bytes = 4},
        {.name = "empty", .dtype = DTYPE_F64, .dimensions = 2, .shape = {0, 5}},
    };
    const char *keys[] = {"lance", "other"}, *values[] = {"{\"a\": \"line\\nbreak\"}\n", ""};
    struct error error = {0};
    struct safetensors *file;
    void *data;
    uint64_t size;
    assert_int_equal(safetensors_write(&data, &size, tensors, 4, keys, values, 2, &error), 0);
    assert_int_equal(safetensors_parse(&file, data, size, "FILE", &error), 0);
    assert_int_equal(safetensors_count(file), 4);
    assert_string_equal(safetensors_metadata(file, "lance"), values[0]);
    assert_string_equal(safetensors_metadata(file, "other"), "");
    assert_null(safetensors_metadata(file, "format"));
    for (int i = 0; i < 4; i++) {
        const struct tensor_view *read = safetensors_find(file, tensors[i].name);
        assert_non_null(read);
        assert_true(tensor_is(read, tensors[i].dtype, tensors[i].dimensions, tensors[i].shape));
        assert_memory_equal(read->data, tensors[i].data ? tensors[i].data : "", tensors[i].bytes);
    }
    assert_null(safetensors_find(file, "n"));
    assert_null(safetensors_at(file, 4));
    assert_string_equal(safetensors_at(file, 1)->name, "m");
    uint64_t header_bytes;
    memcpy(&header_bytes, data, 8);
    assert_int_equal(header_bytes % 8, 0);
    safetensors_close(file);
    free(data);
}

static void a_file_without_tensors_is_valid(void **state)
{
    (void)state;
    struct error error = {0};
    struct safetensors *file;
    size_t bytes;
    uint8_t *data = make_file("{}", 0, &bytes);
    assert_int_equal(safetensors_parse(&file, data, bytes, "FILE", &error), 0);
    assert_int_equal(safetensors_count(file), 0);
    assert_null(safetensors_find(file, "a"));
    assert_null(safetensors_metadata(file, "lance"));
    safetensors_close(file);
    free(data);
}

static void tensors_come_in_the_order_of_their_data(void **state)
{
    (void)state;
    struct error error = {0};
    struct safetensors *file;
    size_t bytes;
    uint8_t *data = make_file("{\"second\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[4,6]},"
                              "\"first\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}",
                              6, &bytes);
    assert_int_equal(safetensors_parse(&file, data, bytes, "FILE", &error), 0);
    assert_string_equal(safetensors_at(file, 0)->name, "first");
    assert_string_equal(safetensors_at(file, 1)->name, "second");
    safetensors_close(file);
    free(data);
}

static void every_float_type_widens_exactly(void **state)
{
    (void)state;
    /* one, minus two, smallest subnormal, greatest finite, infinity; the least step above one */
    const uint16_t half[] = {0x3c00, 0xc000, 0x0001, 0x7bff, 0xfc00, 0x3c01, 0x8000};
    const float half_values[] = {1.0f, -2.0f, 0x1p-24f, 65504.0f, -INFINITY, 1.0f + 0x1p-10f, -0.0f};
    const uint16_t brain[] = {0x3f80, 0xc000, 0x0001, 0x7f80, 0x3f81, 0x7fc0, 0};
    const float brain_values[] = {1.0f, -2.0f, 0x1p-133f, INFINITY, 1.0f + 0x1p-7f, NAN, 0.0f};
    const double wide[] = {0.5, 1.0 + 0x1p-40, 1e300};
    float out[7];
    struct error error = {0};
    struct tensor_view tensor = {
        .name = "t", .dtype = DTYPE_F16, .dimensions = 1, .shape = {7}, .data = half, .bytes = 14};
    assert_int_equal(tensor_to_float(&tensor, out, &error), 0);
    assert_memory_equal(out, half_values, sizeof out);
    tensor.dtype = DTYPE_BF16;
    tensor.data = brain;
    assert_int_equal(tensor_to_float(&tensor, out, &error), 0);
    for (int i = 0; i < 7; i++)
        assert_true(out[i] == brain_values[i] || (isnan(out[i]) && isnan(brain_values[i])));
    tensor =
        (struct tensor_view){.name = "t", .dtype = DTYPE_F64, .dimensions = 1, .shape = {3}, .data = wide, .bytes = 24};
    assert_int_equal(tensor_to_float(&tensor, out, &error), 0);
    assert_true(out[0] == 0.5f && out[1] == 1.0f && isinf(out[2]));
    tensor.dtype = DTYPE_I64;
    assert_int_equal(tensor_to_float(&tensor, out, &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "\"t\": has dtype I64"));
}

static void values_are_read_from_unaligned_data(void **state)
{
    (void)state;
    uint8_t data[9] = {0xff};
    const float values[] = {3.5f, -1.25f};
    float out[2];
    memcpy(data + 1, values, 8);
    const struct tensor_view tensor = {.dtype = DTYPE_F32, .dimensions = 1, .shape = {2}, .data = data + 1, .bytes = 8};
    struct error error = {0};
    assert_int_equal(tensor_to_float(&tensor, out, &error), 0);
    assert_memory_equal(out, values, 8);
}

#define TENSOR(NAME, DTYPE, SHAPE, OFFSETS) \
    "\"" NAME "\":{\"dtype\":\"" DTYPE "\",\"shape\":" SHAPE ",\"data_offsets\":" OFFSETS "}"

static void a_header_that_lies_is_refused_with_the_reason(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t payload_bytes;
        const char *message;
    } cases[] = {
        {"[]", 0, "not a safetensors file"},
        {" {}", 0, "not a safetensors file"},
        {"{", 0, "not valid JSON"},
        {"{}x", 0, "not valid JSON"},
        {"{\"a\":}", 0, "not valid JSON"},
        {"{\"a\":1}", 0, "\"a\": not described by an object"},
        {"{\"\":{}}", 0, "name is empty"},
        {"{\"a\\nb\":{}}", 0, "control characters"},
        {"{\"a\\u0000b\":{}}", 0, "NUL character"},
        {"{\"\xff\":{}}", 0, "not valid UTF-8"},
        {"{\"a\":{}}", 0, "unknown dtype"},
        {"{" TENSOR("a", "F33", "[1]", "[0,4]") "}", 4, "\"a\": unknown dtype \"F33\""},
        {"{" TENSOR("a", "f32", "[1]", "[0,4]") "}", 4, "unknown dtype"},
        {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unknown dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":0}}", 4, "unknown field"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "field twice"},
        {"{" TENSOR("a", "F32", "1", "[0,4]") "}", 4, "bad shape"},
        {"{" TENSOR("a", "F32", "[-1]", "[0,4]") "}", 4, "bad shape"},
        {"{" TENSOR("a", "F32", "[1.5]", "[0,6]") "}", 6, "bad shape"},
        {"{" TENSOR("a", "F32", "[\"1\"]", "[0,4]") "}", 4, "bad shape"},
        {"{" TENSOR("a", "F32", "[1e400]", "[0,4]") "}", 4, "bad shape"},
        {"{" TENSOR("a", "F32", "[9007199254740992]", "[0,4]") "}", 4, "bad shape"},
        {"{" TENSOR("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "bad shape"},
        {"{" TENSOR("a", "F32", "[1]", "[0]") "}", 4, "bad data_offsets"},
        {"{" TENSOR("a", "F32", "[1]", "[0,4,4]") "}", 4, "bad data_offsets"},
        {"{" TENSOR("a", "F32", "[1]", "[4,0]") "}", 4, "bad data_offsets"},
        {"{" TENSOR("a", "F32", "[1]", "[-4,0]") "}", 4, "bad data_offsets"},
        {"{" TENSOR("a", "F32", "[2]", "[0,8]") "}", 4, "truncated"},
        {"{" TENSOR("a", "F32", "[1]", "[9007199254740991,9007199254740991]") "}", 4, "truncated"},
        {"{" TENSOR("a", "F32", "[2]", "[0,4]") "}", 4, "does not fit its length"},
        {"{" TENSOR("a", "U8", "[4294967296,4294967296]", "[0,0]") "}", 0, "does not fit its length"},
        {"{" TENSOR("a", "F64", "[2305843009213693952,8]", "[0,0]") "}", 0, "bad shape"},
        {"{" TENSOR("a", "F32", "[1]", "[0,4]") "}", 5, "1 bytes after the last tensor"},
        {"{" TENSOR("a", "F32", "[1]", "[4,8]") "}", 8, "leaves a gap"},
        {"{" TENSOR("a", "F32", "[1]", "[0,4]") "," TENSOR("b", "F32", "[1]", "[2,6]") "}", 6, "overlaps"},
        {"{" TENSOR("a", "F32", "[1]", "[0,4]") "," TENSOR("b", "F32", "[1]", "[0,4]") "}", 4, "overlaps"},
        {"{" TENSOR("a", "F32", "[1]", "[0,4]") "," TENSOR("a", "F32", "[1]", "[4,8]") "}", 8, "\"a\" is there twice"},
        {"{" TENSOR("a", "U8", "[0]", "[0,0]") "," TENSOR("\\u0061", "U8", "[0]", "[0,0]") "}", 0,
         "\"a\" is there twice"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ is not an object"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "\"k\" is not a string"},
        {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, "\"k\" is there twice"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "__metadata__ is there twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(cases[i].header, cases[i].payload_bytes, cases[i].message);
}

static void an_escaped_backslash_before_u0000_is_no_zero(void **state)
{
    (void)state;
    struct error error = {0};
    struct safetensors *file;
    size_t bytes;
    uint8_t *data = make_file("{\"__metadata__\":{\"k\":\"\\\\u0000\"}}", 0, &bytes);
    assert_int_equal(safetensors_parse(&file, data, bytes, "FILE", &error), 0);
    assert_string_equal(safetensors_metadata(file, "k"), "\\u0000");
    safetensors_close(file);
    free(data);
}

static void a_header_of_very_many_or_very_deep_values_is_refused(void **state)
{
    (void)state;
    enum { MANY = 3 << 20, DEEP = 100000 };
    char *header = malloc(MANY + 1);
    memset(header, ',', MANY);
    memcpy(header, "{\"a\":[", 6);
    header[MANY] = '\0';
    assert_refused(header, 0, "more than 1048576 JSON values");
    memset(header, '[', DEEP);
    memcpy(header, "{\"a\":", 5);
    header[DEEP] = '\0';
    assert_refused(header, 0, "nested more than 100 levels deep");
    free(header);
}

static void a_header_length_beyond_the_file_or_the_limit_is_refused(void **state)
{
    (void)state;
    struct error error = {0};
    struct safetensors *file;
    uint8_t data[16] = {9, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
    assert_int_equal(safetensors_parse(&file, data, sizeof data, "FILE", &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "truncated"));
    memset(data, 0xff, 8);
    assert_int_equal(safetensors_parse(&file, data, sizeof data, "FILE", &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "its header would have 18446744073709551615 bytes"));
}

static void a_file_cut_at_any_byte_is_refused(void **state)
{
    (void)state;
    size_t bytes;
    uint8_t *whole = make_file(small_header, SMALL_PAYLOAD, &bytes);
    for (size_t cut = 0; cut < bytes; cut++) {
        uint8_t *data = malloc(cut + 1);
        memcpy(data, whole, cut);
        struct error error = {0};
        struct safetensors *file;
        assert_int_equal(safetensors_parse(&file, data, cut, "FILE", &error), ERROR_BAD_FILE);
        free(data);
    }
    assert_safe(whole, bytes);
    free(whole);
}

static void a_header_with_any_bit_flipped_is_refused_or_safe(void **state)
{
    (void)state;
    size_t bytes;
    uint8_t *data = make_file(small_header, SMALL_PAYLOAD, &bytes);
    for (size_t i = 0; i < bytes - SMALL_PAYLOAD; i++)
        for (int bit = 0; bit < 8; bit++) {
            data[i] ^= (uint8_t)(1 << bit);
            assert_safe(data, bytes);
            data[i] ^= (uint8_t)(1 << bit);
        }
    free(data);
}

static void random_changes_are_refused_or_safe(void **state)
{
    (void)state;
    static const char alphabet[] = "\"\\{}[]:,0129-.eE \xff\0uF";
    size_t bytes;
    uint8_t *whole = make_file(small_header, SMALL_PAYLOAD, &bytes);
    uint64_t random = 1;
    for (int round = 0; round < 20000; round++) {
        uint8_t *data = malloc(bytes);
        memcpy(data, whole, bytes);
        for (int change = 0; change <= round % 4; change++) {
            random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            size_t at = (size_t)(random >> 33) % bytes;
            data[at] = (uint8_t)alphabet[(random >> 20) % sizeof alphabet];
        }
        assert_safe(data, bytes);
        free(data);
    }
    free(whole);
}

static void files_that_cannot_be_opened_say_why(void **state)
{
    (void)state;
    struct error error = {0};
    struct safetensors *file;
    assert_int_equal(safetensors_open(&file, "/nonexistent/model.safetensors", &error), ERROR_BAD_FILE);
    assert_string_equal(error.text, "/nonexistent/model.safetensors: No such file or directory");
    assert_int_equal(safetensors_open(&file, "/tmp", &error), ERROR_BAD_FILE);
    assert_string_equal(error.text, "/tmp: not a regular file");
    char path[] = "/tmp/lance-empty-XXXXXX";
    close(mkstemp(path));
    assert_int_equal(safetensors_open(&file, path, &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "only 0 bytes"));
    unlink(path);
}

static void a_file_on_disk_is_read_through_a_mapping(void **state)
{
    (void)state;
    char path[] = "/tmp/lance-file-XXXXXX";
    size_t bytes;
    uint8_t *data = make_file(small_header, SMALL_PAYLOAD, &bytes);
    int fd = mkstemp(path);
    assert_int_equal(write(fd, data, bytes), bytes);
    close(fd);
    struct error error = {0};
    struct safetensors *file;
    assert_int_equal(safetensors_open(&file, path, &error), 0);
    unlink(path);
    const struct tensor_view *tensor = safetensors_find(file, "b");
    assert_memory_equal(tensor->data, data + bytes - 3, 3);
    safetensors_close(file);
    free(data);
}

static void what_could_not_be_read_is_not_written(void **state)
{
    (void)state;
    const float number = 1;
    struct tensor_view tensors[] = {
        {.name = "a", .dtype = DTYPE_F32, .data = &number, .bytes = 4},
        {.name = "a", .dtype = DTYPE_F32, .data = &number, .bytes = 4},
    };
    struct error error = {0};
    void *data;
    uint64_t bytes;
    assert_int_equal(safetensors_write(&data, &bytes, tensors, 2, NULL, NULL, 0, &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "twice"));
    assert_null(data);
    tensors[1].name = "b\n";
    assert_true(safetensors_write(&data, &bytes, tensors, 2, NULL, NULL, 0, &error) < 0);
    tensors[1].name = "b";
    tensors[1].bytes = 8;
    assert_int_equal(safetensors_write(&data, &bytes, tensors, 2, NULL, NULL, 0, &error), ERROR_INTERNAL);
    assert_non_null(strstr(error.text, "\"b\" cannot be written"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(a_file_without_tensors_is_valid),
        cmocka_unit_test(tensors_come_in_the_order_of_their_data),
        cmocka_unit_test(every_float_type_widens_exactly),
        cmocka_unit_test(values_are_read_from_unaligned_data),
        cmocka_unit_test(a_header_that_lies_is_refused_with_the_reason),
        cmocka_unit_test(an_escaped_backslash_before_u0000_is_no_zero),
        cmocka_unit_test(a_header_of_very_many_or_very_deep_values_is_refused),
        cmocka_unit_test(a_header_length_beyond_the_file_or_the_limit_is_refused),
        cmocka_unit_test(a_file_cut_at_any_byte_is_refused),
        cmocka_unit_test(a_header_with_any_bit_flipped_is_refused_or_safe),
        cmocka_unit_test(random_changes_are_refused_or_safe),
        cmocka_unit_test(files_that_cannot_be_opened_say_why),
        cmocka_unit_test(a_file_on_disk_is_read_through_a_mapping),
        cmocka_unit_test(what_could_not_be_read_is_not_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
