/* safetensors.c: see safetensors.h.
 *
 * The format: u64 little-endian header length, the header (a JSON object: tensor name ->
 * {dtype, shape, data_offsets}, and optionally __metadata__ -> strings), then the data.
 * Source: the format's description at huggingface/safetensors.
 *
 * Parsing goes through two gates: json_parse bounds what the header may take and checks the grammar; the
 * read_* functions check the meaning. Names and metadata stay in the JSON tree.
 */
#include "protocol/safetensors.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mapped_file.h"

enum {
    LENGTH_BYTES = 8,
    MAX_HEADER_BYTES = 100 * 1000 * 1000, /* as the format's own library */
    MAX_JSON_VALUES = 1 << 20,            /* bounds the JSON tree's memory: about 80 MB */
    MAX_NAME_BYTES = 1024,
    DATA_ALIGNMENT = 8
};

struct safetensors {
    const uint8_t *data;
    uint64_t bytes;
    struct mapped_file mapping; /* empty when the buffer is the caller's */
    cJSON *header;
    const cJSON *metadata;      /* inside header, or NULL */
    size_t count;
    struct tensor_view *tensors;         /* in the order of their data */
    const struct tensor_view **by_name;  /* sorted by name */
};

static const struct {
    const char *name;
    size_t bytes;
} dtypes[DTYPE_COUNT] = {
    [DTYPE_BOOL] = {"BOOL", 1}, [DTYPE_U8] = {"U8", 1}, [DTYPE_I8] = {"I8", 1},
    [DTYPE_F8_E4M3] = {"F8_E4M3", 1}, [DTYPE_F8_E5M2] = {"F8_E5M2", 1},
    [DTYPE_I16] = {"I16", 2}, [DTYPE_U16] = {"U16", 2}, [DTYPE_F16] = {"F16", 2}, [DTYPE_BF16] = {"BF16", 2},
    [DTYPE_I32] = {"I32", 4}, [DTYPE_U32] = {"U32", 4}, [DTYPE_F32] = {"F32", 4},
    [DTYPE_I64] = {"I64", 8}, [DTYPE_U64] = {"U64", 8}, [DTYPE_F64] = {"F64", 8},
};

size_t dtype_bytes(enum dtype dtype)
{
    return (unsigned)dtype < DTYPE_COUNT ? dtypes[dtype].bytes : 0;
}

const char *dtype_name(enum dtype dtype)
{
    return (unsigned)dtype < DTYPE_COUNT ? dtypes[dtype].name : "unknown";
}

bool dtype_of_name(const char *name, enum dtype *dtype)
{
    for (int d = 0; name && d < DTYPE_COUNT; d++)
        if (!strcmp(dtypes[d].name, name)) {
            *dtype = (enum dtype)d;
            return true;
        }
    return false;
}

uint64_t tensor_elements(const struct tensor_view *tensor)
{
    uint64_t elements = 1;
    for (int d = 0; d < tensor->dimensions; d++)
        elements *= tensor->shape[d];
    return elements;
}

bool tensor_is(const struct tensor_view *tensor, enum dtype dtype, int dimensions, const uint64_t *shape)
{
    if (tensor->dtype != dtype || tensor->dimensions != dimensions)
        return false;
    for (int d = 0; d < dimensions; d++)
        if (tensor->shape[d] != shape[d])
            return false;
    return true;
}

/* --- element values --------------------------------------------------------------- */

static float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float float_of_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = (half >> 10) & 0x1f;
    uint32_t fraction = half & 0x3ff;
    if (exponent == 0x1f)
        return float_of_bits(sign | 0x7f800000 | fraction << 13);
    if (exponent == 0) {
        float magnitude = (float)fraction * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

int tensor_to_float(const struct tensor_view *tensor, float *out, struct error *error)
{
    uint64_t elements = tensor_elements(tensor);
    const uint8_t *from = tensor->data;
    uint16_t half;
    double wide;
    switch (tensor->dtype) {
    case DTYPE_F32:
        if (elements)
            memcpy(out, from, elements * sizeof *out);
        return 0;
    case DTYPE_BF16:
        for (uint64_t i = 0; i < elements; i++) {
            memcpy(&half, from + i * sizeof half, sizeof half);
            out[i] = float_of_bits((uint32_t)half << 16);
        }
        return 0;
    case DTYPE_F16:
        for (uint64_t i = 0; i < elements; i++) {
            memcpy(&half, from + i * sizeof half, sizeof half);
            out[i] = float_of_half(half);
        }
        return 0;
    case DTYPE_F64:
        for (uint64_t i = 0; i < elements; i++) {
            memcpy(&wide, from + i * sizeof wide, sizeof wide);
            out[i] = (float)wide;
        }
        return 0;
    default:
        return error_set(error, ERROR_BAD_FILE,
                         "tensor \"%.200s\": has dtype %s where floating-point numbers are needed",
                         tensor->name ? tensor->name : "", dtype_name(tensor->dtype));
    }
}

/* --- parsing ----------------------------------------------------------------------- */

/* Shape times element size. Returns false when it does not fit 2^53, the greatest size that a
 * JSON number can state exactly. */
static bool tensor_size(const struct tensor_view *tensor, uint64_t *bytes)
{
    const uint64_t limit = UINT64_C(1) << 53;
    uint64_t size = dtype_bytes(tensor->dtype);
    for (int d = 0; d < tensor->dimensions; d++)
        if (tensor->shape[d] == 0) {
            *bytes = 0;
            return true;
        }
    for (int d = 0; d < tensor->dimensions; d++) {
        if (tensor->shape[d] > limit / size)
            return false;
        size *= tensor->shape[d];
    }
    *bytes = size;
    return true;
}

static const struct json_limits header_limits = {.bytes = MAX_HEADER_BYTES,
                                                 .values = MAX_JSON_VALUES,
                                                 .over = ERROR_BAD_FILE,
                                                 .bad = ERROR_BAD_FILE};

/* A whole number from 0 to 2^53 - 1, all of which a double holds exactly. */
static bool read_integer(const cJSON *item, uint64_t *out)
{
    if (!cJSON_IsNumber(item))
        return false;
    double value = item->valuedouble;
    if (!(value >= 0 && value < 0x1p53) || value != floor(value))
        return false;
    *out = (uint64_t)value;
    return true;
}

static bool read_shape(const cJSON *item, struct tensor_view *tensor)
{
    if (!cJSON_IsArray(item))
        return false;
    tensor->dimensions = 0;
    for (const cJSON *size = item->child; size; size = size->next) {
        if (tensor->dimensions == TENSOR_MAX_DIMENSIONS || !read_integer(size, &tensor->shape[tensor->dimensions]))
            return false;
        tensor->dimensions++;
    }
    return true;
}

bool tensor_describe(struct tensor_view *tensor, const cJSON *entry)
{
    return cJSON_IsObject(entry) && dtype_of_name(json_text(entry, "dtype"), &tensor->dtype) &&
           read_shape(cJSON_GetObjectItemCaseSensitive(entry, "shape"), tensor) && tensor_size(tensor, &tensor->bytes);
}

static bool read_offsets(const cJSON *item, uint64_t *begin, uint64_t *end)
{
    return cJSON_IsArray(item) && item->child && item->child->next && !item->child->next->next &&
           read_integer(item->child, begin) && read_integer(item->child->next, end) && *begin <= *end;
}

static bool is_printable_name(const char *name)
{
    size_t length = 0;
    for (; name[length]; length++)
        if ((unsigned char)name[length] < 0x20 || name[length] == 0x7f || length == MAX_NAME_BYTES)
            return false;
    return length > 0;
}

/* One header entry, checked by itself; `payload` is the start of the data area. */
static int read_tensor(const cJSON *entry, const uint8_t *payload, uint64_t payload_bytes, const char *what,
                       struct tensor_view *tensor, struct error *error)
{
    if (!is_printable_name(entry->string))
        return error_set(error, ERROR_BAD_FILE,
                         "%s: a tensor's name is empty, longer than %d bytes or has control characters", what,
                         MAX_NAME_BYTES);
    tensor->name = entry->string;
    const char *defect = NULL;
    const cJSON *dtype = NULL, *shape = NULL, *offsets = NULL;
    if (!cJSON_IsObject(entry))
        return error_set(error, ERROR_BAD_FILE, "%s: tensor \"%.200s\": not described by an object", what,
                         tensor->name);
    for (const cJSON *field = entry->child; field; field = field->next) {
        const cJSON **place = !strcmp(field->string, "dtype")          ? &dtype
                              : !strcmp(field->string, "shape")        ? &shape
                              : !strcmp(field->string, "data_offsets") ? &offsets
                                                                       : NULL;
        if (!place)
            defect = "has an unknown field";
        else if (*place)
            defect = "has a field twice";
        else
            *place = field;
    }
    uint64_t begin = 0, end = 0, size = 0;
    if (defect)
        ;
    else if (!dtype_of_name(cJSON_GetStringValue(dtype), &tensor->dtype))
        return error_set(error, ERROR_BAD_FILE, "%s: tensor \"%.200s\": unknown dtype \"%.40s\"", what, tensor->name,
                         cJSON_IsString(dtype) ? dtype->valuestring : "");
    else if (!read_shape(shape, tensor))
        defect = "has a bad shape (at most 8 whole numbers are allowed)";
    else if (!read_offsets(offsets, &begin, &end))
        defect = "has bad data_offsets";
    else if (end > payload_bytes)
        return error_set(
            error, ERROR_BAD_FILE,
            "%s: tensor \"%.200s\": ends at byte %llu of the data, but the file has only %llu: it is truncated", what,
            tensor->name, (unsigned long long)end, (unsigned long long)payload_bytes);
    else if (!tensor_size(tensor, &size) || size != end - begin)
        defect = "has a shape that does not fit its length in bytes";
    if (defect)
        return error_set(error, ERROR_BAD_FILE, "%s: tensor \"%.200s\": %s", what, tensor->name, defect);
    tensor->data = payload + begin;
    tensor->bytes = size;
    return 0;
}

static int compare_by_data(const void *a, const void *b)
{
    const struct tensor_view *left = a, *right = b;
    const uint8_t *left_begin = left->data, *right_begin = right->data;
    if (left_begin != right_begin)
        return left_begin < right_begin ? -1 : 1;
    if (left->bytes != right->bytes)
        return left->bytes < right->bytes ? -1 : 1;
    return strcmp(left->name, right->name);
}

int tensor_compare_names(const void *a, const void *b)
{
    const struct tensor_view *left = a, *right = b;
    return strcmp(left->name, right->name);
}

int tensor_compare_names_at(const void *a, const void *b)
{
    const struct tensor_view *const *left = a, *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

static int compare_strings(const void *a, const void *b)
{
    const char *const *left = a, *const *right = b;
    return strcmp(*left, *right);
}

static int read_metadata(struct safetensors *file, const cJSON *entry, const char *what, struct error *error)
{
    if (file->metadata)
        return error_set(error, ERROR_BAD_FILE, "%s: __metadata__ is there twice", what);
    if (!cJSON_IsObject(entry))
        return error_set(error, ERROR_BAD_FILE, "%s: __metadata__ is not an object", what);
    size_t count = 0;
    for (const cJSON *pair = entry->child; pair; pair = pair->next, count++)
        if (!cJSON_IsString(pair))
            return error_set(error, ERROR_BAD_FILE, "%s: __metadata__ \"%.200s\" is not a string", what, pair->string);
    const char **keys = malloc((count + 1) * sizeof *keys);
    if (!keys)
        return error_set(error, ERROR_NO_MEMORY, "%s: no memory for its metadata", what);
    count = 0;
    for (const cJSON *pair = entry->child; pair; pair = pair->next)
        keys[count++] = pair->string;
    qsort(keys, count, sizeof *keys, compare_strings);
    int result = 0;
    for (size_t i = 1; i < count && !result; i++)
        if (!strcmp(keys[i - 1], keys[i]))
            result = error_set(error, ERROR_BAD_FILE, "%s: __metadata__ \"%.200s\" is there twice", what, keys[i]);
    free(keys);
    file->metadata = entry;
    return result;
}

/* Sort the tensors and check what concerns all of them: no gap, no overlap, no name twice. */
static int check_layout(struct safetensors *file, const uint8_t *payload, uint64_t payload_bytes, const char *what,
                        struct error *error)
{
    qsort(file->tensors, file->count, sizeof *file->tensors, compare_by_data);
    uint64_t covered = 0;
    for (size_t i = 0; i < file->count; i++) {
        const struct tensor_view *tensor = &file->tensors[i];
        uint64_t begin = (uint64_t)((const uint8_t *)tensor->data - payload);
        if (begin != covered)
            return error_set(error, ERROR_BAD_FILE, "%s: tensor \"%.200s\": its data %s", what, tensor->name,
                             begin < covered ? "overlaps another tensor's" : "leaves a gap before it");
        covered += tensor->bytes;
        file->by_name[i] = tensor;
    }
    if (covered != payload_bytes)
        return error_set(error, ERROR_BAD_FILE, "%s: %llu bytes after the last tensor belong to none", what,
                         (unsigned long long)(payload_bytes - covered));
    qsort(file->by_name, file->count, sizeof *file->by_name, tensor_compare_names_at);
    for (size_t i = 1; i < file->count; i++)
        if (!strcmp(file->by_name[i - 1]->name, file->by_name[i]->name))
            return error_set(error, ERROR_BAD_FILE, "%s: tensor \"%.200s\" is there twice", what,
                             file->by_name[i]->name);
    return 0;
}

static int parse_header(struct safetensors *file, const char *what, struct error *error)
{
    if (file->bytes < LENGTH_BYTES)
        return error_set(error, ERROR_BAD_FILE, "%s: not a safetensors file (only %llu bytes)", what,
                         (unsigned long long)file->bytes);
    uint64_t header_bytes = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--)
        header_bytes = header_bytes << 8 | file->data[i];
    if (header_bytes > MAX_HEADER_BYTES)
        return error_set(error, ERROR_BAD_FILE, "%s: not a safetensors file (its header would have %llu bytes)", what,
                         (unsigned long long)header_bytes);
    if (header_bytes > file->bytes - LENGTH_BYTES)
        return error_set(error, ERROR_BAD_FILE, "%s: truncated: the header has %llu bytes, the file %llu", what,
                         (unsigned long long)header_bytes, (unsigned long long)file->bytes);
    const uint8_t *header = file->data + LENGTH_BYTES;
    const uint8_t *payload = header + header_bytes;
    uint64_t payload_bytes = file->bytes - LENGTH_BYTES - header_bytes;
    if (header_bytes == 0 || header[0] != '{')
        return error_set(error, ERROR_BAD_FILE, "%s: not a safetensors file (its header does not start with '{')",
                         what);
    char name[PATH_MAX + 40];
    snprintf(name, sizeof name, "%s: its safetensors header", what);
    int result = json_parse(&file->header, (const char *)header, (size_t)header_bytes, &header_limits, name, error);
    if (result)
        return result;

    size_t entries = 0;
    for (const cJSON *entry = file->header->child; entry; entry = entry->next)
        entries++;
    file->tensors = calloc(entries + 1, sizeof *file->tensors);
    file->by_name = calloc(entries + 1, sizeof *file->by_name);
    if (!file->tensors || !file->by_name)
        return error_set(error, ERROR_NO_MEMORY, "%s: no memory for %zu tensors", what, entries);
    for (const cJSON *entry = file->header->child; entry; entry = entry->next) {
        if (!strcmp(entry->string, "__metadata__"))
            result = read_metadata(file, entry, what, error);
        else
            result = read_tensor(entry, payload, payload_bytes, what, &file->tensors[file->count++], error);
        if (result)
            return result;
    }
    return check_layout(file, payload, payload_bytes, what, error);
}

int safetensors_parse(struct safetensors **out, const void *data, uint64_t bytes, const char *what,
                      struct error *error)
{
    *out = NULL;
    struct safetensors *file = calloc(1, sizeof *file);
    if (!file)
        return error_set(error, ERROR_NO_MEMORY, "%s: no memory", what);
    file->data = data;
    file->bytes = bytes;
    int result = parse_header(file, what, error);
    if (result) {
        safetensors_close(file);
        return result;
    }
    *out = file;
    return 0;
}

int safetensors_open(struct safetensors **out, const char *path, struct error *error)
{
    *out = NULL;
    struct mapped_file mapping;
    int result = mapped_file_open(&mapping, path, error);
    if (result)
        return result;
    result = safetensors_parse(out, mapping.data, mapping.bytes, path, error);
    if (result) {
        mapped_file_close(&mapping);
        return result;
    }
    (*out)->mapping = mapping;
    return 0;
}

void safetensors_close(struct safetensors *file)
{
    if (!file)
        return;
    cJSON_Delete(file->header);
    free(file->tensors);
    free(file->by_name);
    mapped_file_close(&file->mapping);
    free(file);
}

size_t safetensors_count(const struct safetensors *file)
{
    return file->count;
}

const struct tensor_view *safetensors_at(const struct safetensors *file, size_t index)
{
    return index < file->count ? &file->tensors[index] : NULL;
}

const struct tensor_view *safetensors_find(const struct safetensors *file, const char *name)
{
    const struct tensor_view wanted = {.name = name}, *key = &wanted;
    const struct tensor_view **found =
        bsearch(&key, file->by_name, file->count, sizeof *file->by_name, tensor_compare_names_at);
    return found ? *found : NULL;
}

const char *safetensors_metadata(const struct safetensors *file, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(file->metadata, key);
    return cJSON_GetStringValue(value);
}

/* --- writing ----------------------------------------------------------------------- */

static void add_tensor(cJSON *header, const struct tensor_view *tensor, uint64_t begin)
{
    cJSON *entry = json_add_object(header, tensor->name);
    json_add_text(entry, "dtype", dtype_name(tensor->dtype));
    cJSON *shape = json_add_array(entry, "shape");
    for (int d = 0; d < tensor->dimensions; d++)
        json_append_number(shape, (double)tensor->shape[d]);
    cJSON *offsets = json_add_array(entry, "data_offsets");
    json_append_number(offsets, (double)begin);
    json_append_number(offsets, (double)(begin + tensor->bytes));
}

/* The header as JSON text, malloc'ed. */
static char *header_text(const struct tensor_view *tensors, size_t count, const char *const *metadata_keys,
                         const char *const *metadata_values, size_t metadata_count)
{
    cJSON *header = json_object();
    if (metadata_count) {
        cJSON *metadata = json_add_object(header, "__metadata__");
        for (size_t i = 0; i < metadata_count; i++)
            json_add_text(metadata, metadata_keys[i], metadata_values[i]);
    }
    uint64_t begin = 0;
    for (size_t i = 0; i < count; i++) {
        add_tensor(header, &tensors[i], begin);
        begin += tensors[i].bytes;
    }
    char *text = json_print(header);
    cJSON_Delete(header);
    return text;
}

/* The tensors' bytes together; ERROR_INTERNAL when one cannot be written. */
static int payload_size(const struct tensor_view *tensors, size_t count, uint64_t *payload_bytes, struct error *error)
{
    *payload_bytes = 0;
    for (size_t i = 0; i < count; i++) {
        const struct tensor_view *tensor = &tensors[i];
        uint64_t size;
        if (!tensor->name || (unsigned)tensor->dtype >= DTYPE_COUNT || tensor->dimensions < 0 ||
            tensor->dimensions > TENSOR_MAX_DIMENSIONS || !tensor_size(tensor, &size) || size != tensor->bytes ||
            *payload_bytes + size > UINT64_C(1) << 53)
            return error_set(error, ERROR_INTERNAL, "safetensors: tensor \"%.200s\" cannot be written as described",
                             tensor->name ? tensor->name : "");
        *payload_bytes += size;
    }
    return 0;
}

/* The header with its length in front, in a malloc'ed buffer with room for `room` bytes more. */
static int make_header(uint8_t **out, uint64_t *out_bytes, const struct tensor_view *tensors, size_t count,
                       const char *const *metadata_keys, const char *const *metadata_values, size_t metadata_count,
                       uint64_t room, struct error *error)
{
    char *text = header_text(tensors, count, metadata_keys, metadata_values, metadata_count);
    if (!text)
        return error_set(error, ERROR_NO_MEMORY, "safetensors: no memory for a header of %zu tensors", count);
    size_t text_bytes = strlen(text);
    size_t header_bytes = (text_bytes + DATA_ALIGNMENT - 1) / DATA_ALIGNMENT * DATA_ALIGNMENT;
    uint8_t *buffer = malloc(LENGTH_BYTES + header_bytes + (size_t)room);
    if (!buffer) {
        cJSON_free(text);
        return error_set(error, ERROR_NO_MEMORY, "safetensors: no memory for a message of %llu bytes",
                         (unsigned long long)room);
    }
    for (int i = 0; i < LENGTH_BYTES; i++)
        buffer[i] = (uint8_t)((uint64_t)header_bytes >> 8 * i);
    memcpy(buffer + LENGTH_BYTES, text, text_bytes);
    memset(buffer + LENGTH_BYTES + text_bytes, ' ', header_bytes - text_bytes);
    cJSON_free(text);
    *out = buffer;
    *out_bytes = LENGTH_BYTES + header_bytes;
    return 0;
}

int safetensors_header(void **out, uint64_t *out_bytes, const struct tensor_view *tensors, size_t count,
                       const char *const *metadata_keys, const char *const *metadata_values, size_t metadata_count,
                       struct error *error)
{
    *out = NULL;
    *out_bytes = 0;
    uint64_t payload_bytes;
    uint8_t *header;
    int result = payload_size(tensors, count, &payload_bytes, error);
    if (!result)
        result =
            make_header(&header, out_bytes, tensors, count, metadata_keys, metadata_values, metadata_count, 0, error);
    if (!result)
        *out = header;
    return result;
}

int safetensors_write(void **out, uint64_t *out_bytes, const struct tensor_view *tensors, size_t count,
                      const char *const *metadata_keys, const char *const *metadata_values,
                      size_t metadata_count, struct error *error)
{
    *out = NULL;
    *out_bytes = 0;
    uint64_t payload_bytes, header_bytes;
    uint8_t *buffer;
    int result = payload_size(tensors, count, &payload_bytes, error);
    if (!result)
        result = make_header(&buffer, &header_bytes, tensors, count, metadata_keys, metadata_values, metadata_count,
                             payload_bytes, error);
    if (result)
        return result;
    uint8_t *to = buffer + header_bytes;
    for (size_t i = 0; i < count; i++) {
        if (tensors[i].bytes)
            memcpy(to, tensors[i].data, (size_t)tensors[i].bytes);
        to += tensors[i].bytes;
    }
    uint64_t bytes = (uint64_t)(to - buffer);

    /* Names and metadata come from callers: what our own reader would refuse must not leave. */
    struct safetensors *check;
    result = safetensors_parse(&check, buffer, bytes, "safetensors being written", error);
    if (result) {
        free(buffer);
        return result;
    }
    safetensors_close(check);
    *out = buffer;
    *out_bytes = bytes;
    return 0;
}
