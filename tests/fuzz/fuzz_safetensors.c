/* fuzz_safetensors.c: libFuzzer target for the safetensors parser (make fuzz).
 *
 * What the parser accepts is then used as the daemon would: every tensor found by its name and its data read, and
 * the whole written again and parsed to the same. */
#include <stdlib.h>
#include <string.h>

#include "protocol/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static volatile uint8_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct error error = {0};
    struct safetensors *file, *again;
    if (safetensors_parse(&file, data, bytes, "input", &error)) {
        if (error.code >= 0 || !*error.text)
            abort();
        return 0;
    }
    size_t count = safetensors_count(file);
    struct tensor_view *tensors = calloc(count + 1, sizeof *tensors);
    for (size_t i = 0; i < count; i++) {
        tensors[i] = *safetensors_at(file, i);
        if (safetensors_find(file, tensors[i].name) != safetensors_at(file, i))
            abort();
        for (uint64_t b = 0; b < tensors[i].bytes; b++)
            sink ^= ((const uint8_t *)tensors[i].data)[b];
    }
    const char *key = "lance", *value = safetensors_metadata(file, key);
    void *written;
    uint64_t written_bytes;
    if (safetensors_write(&written, &written_bytes, tensors, count, &key, &value, value != NULL, &error) ||
        safetensors_parse(&again, written, written_bytes, "written", &error) || safetensors_count(again) != count)
        abort();
    for (size_t i = 0; i < count; i++) {
        const struct tensor_view *read = safetensors_find(again, tensors[i].name);
        if (!read || !tensor_is(read, tensors[i].dtype, tensors[i].dimensions, tensors[i].shape) ||
            (read->bytes && memcmp(read->data, tensors[i].data, read->bytes)))
            abort();
    }
    safetensors_close(again);
    safetensors_close(file);
    free(written);
    free(tensors);
    return 0;
}
