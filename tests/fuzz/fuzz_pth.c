/* fuzz_pth.c: libFuzzer target for the .pth reader (make fuzz).
 *
 * The pickle has a checksum, which random changes would never match: the mutator sets it right again, so that the
 * pickle machine gets its share. */
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "daemon/engine/model/checkpoint/pth.h"
#include "daemon/engine/model/checkpoint/zip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
size_t LLVMFuzzerMutate(uint8_t *data, size_t bytes, size_t capacity);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t capacity, unsigned seed);

static volatile uint8_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct error error = {0};
    struct pth *pth;
    if (pth_parse(&pth, data, bytes, "input", &error)) {
        if (error.code >= 0 || !*error.text)
            abort();
        return 0;
    }
    for (size_t i = 0; i < pth_count(pth); i++) {
        const struct tensor_view *tensor = pth_at(pth, i);
        if (pth_find(pth, tensor->name) != tensor ||
            tensor_elements(tensor) * dtype_bytes(tensor->dtype) != tensor->bytes)
            abort();
        for (uint64_t b = 0; b < tensor->bytes; b++)
            sink ^= ((const uint8_t *)tensor->data)[b];
    }
    pth_close(pth);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t capacity, unsigned seed)
{
    enum { CENTRAL_HEADER_BYTES = 46, CHECKSUM_AT = 16 };
    static const char suffix[] = "/data.pkl";
    (void)seed;
    bytes = LLVMFuzzerMutate(data, bytes, capacity);
    struct zip *zip;
    if (zip_open(&zip, data, bytes, "input", NULL))
        return bytes;
    for (size_t i = 0; i < zip_count(zip); i++) {
        const struct zip_entry *entry = zip_at(zip, i);
        size_t suffix_bytes = sizeof suffix - 1;
        if (entry->name_bytes < suffix_bytes ||
            memcmp(entry->name + entry->name_bytes - suffix_bytes, suffix, suffix_bytes))
            continue;
        uLong sum = crc32(0, entry->data, (uInt)entry->bytes);
        uint8_t *field = data + ((const uint8_t *)entry->name - data) - CENTRAL_HEADER_BYTES + CHECKSUM_AT;
        for (int byte = 0; byte < 4; byte++)
            field[byte] = (uint8_t)(sum >> 8 * byte);
    }
    zip_close(zip);
    return bytes;
}
