/* packed_fixture.h: safetensors that are kept compressed (gzip), for tests. */
#ifndef PACKED_FIXTURE_H
#define PACKED_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <zlib.h>

#include "protocol/safetensors.h"

struct packed {
    struct safetensors *file;
    void *data;
};

/* Plain files are read as they are. */
static inline struct packed packed_open(const char *path)
{
    struct packed packed = {0};
    struct error error;
    size_t bytes = 0, room = 1 << 20;
    gzFile from = gzopen(path, "rb");
    if (!from)
        fail_msg("%s cannot be opened", path);
    for (int got = 1; got > 0; bytes += (size_t)got) {
        if (!packed.data || room - bytes < 1 << 16)
            packed.data = realloc(packed.data, room *= 2);
        assert_non_null(packed.data);
        got = gzread(from, (uint8_t *)packed.data + bytes, 1 << 16);
        if (got < 0)
            fail_msg("%s is damaged", path);
    }
    gzclose(from);
    if (safetensors_parse(&packed.file, packed.data, bytes, path, &error))
        fail_msg("%s", error.text);
    return packed;
}

static inline void packed_close(struct packed *packed)
{
    safetensors_close(packed->file);
    free(packed->data);
}

#endif
