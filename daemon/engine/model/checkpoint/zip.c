/* zip.c: see zip.h. Record layouts: PKWARE's APPNOTE, sections 4.3 and 4.5.3. */
#include "daemon/engine/model/checkpoint/zip.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    END_BYTES = 22,           /* end of central directory record */
    END64_BYTES = 56,         /* its zip64 form */
    END64_LOCATOR_BYTES = 20,
    CENTRAL_BYTES = 46,       /* central directory file header */
    LOCAL_BYTES = 30,         /* local file header */
    MAX_COMMENT_BYTES = 65535,
    EXTRA_ZIP64 = 1,
    END_SIGNATURE = 0x06054b50, /* "PK\5\6" */
    FLAG_ENCRYPTED = 1
};

struct zip {
    struct zip_entry *entries;
    size_t count;
};

/* Where the central directory is. */
struct directory {
    uint64_t offset, bytes, entries;
};

static uint16_t u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t u32(const uint8_t *p)
{
    return (uint32_t)u16(p) | (uint32_t)u16(p + 2) << 16;
}

static uint64_t u64(const uint8_t *p)
{
    return (uint64_t)u32(p) | (uint64_t)u32(p + 4) << 32;
}

/* The record ends the file but for a comment, whose length it states. Offset or -1. */
static int64_t find_end(const uint8_t *data, uint64_t bytes)
{
    for (uint64_t comment = 0; comment <= MAX_COMMENT_BYTES && comment + END_BYTES <= bytes; comment++) {
        const uint8_t *record = data + (bytes - END_BYTES - comment);
        if (u32(record) == END_SIGNATURE && u16(record + 20) == comment)
            return record - data;
    }
    return -1;
}

static int read_end(const uint8_t *data, uint64_t bytes, const char *what, struct directory *directory,
                    struct error *error)
{
    int64_t end = find_end(data, bytes);
    if (end < 0)
        return error_set(error, ERROR_BAD_FILE, "%s: no zip directory at its end: it is truncated or not a zip file",
                         what);
    const uint8_t *record = data + end;
    *directory = (struct directory){.offset = u32(record + 16), .bytes = u32(record + 12), .entries = u16(record + 10)};
    uint64_t limit = (uint64_t)end;
    if (end >= END64_LOCATOR_BYTES && !memcmp(record - END64_LOCATOR_BYTES, "PK\6\7", 4)) {
        uint64_t end64 = u64(record - END64_LOCATOR_BYTES + 8);
        limit -= END64_LOCATOR_BYTES;
        if (limit < END64_BYTES || end64 > limit - END64_BYTES || memcmp(data + end64, "PK\6\6", 4))
            return error_set(error, ERROR_BAD_FILE, "%s: zip64 directory record is not where the file says", what);
        limit = end64;
        *directory = (struct directory){
            .offset = u64(data + end64 + 48), .bytes = u64(data + end64 + 40), .entries = u64(data + end64 + 32)};
    }
    if (directory->offset > limit || directory->bytes > limit - directory->offset ||
        directory->entries > directory->bytes / CENTRAL_BYTES)
        return error_set(error, ERROR_BAD_FILE, "%s: zip directory does not fit the file: it is truncated or damaged",
                         what);
    return 0;
}

/* Sizes and offset that do not fit 32 bits stand in the zip64 extra field, in this order, only those
 * whose 32-bit field is all ones. */
static bool read_zip64_extra(const uint8_t *extra, size_t extra_bytes, uint64_t **values, size_t count)
{
    while (extra_bytes >= 4) {
        size_t id = u16(extra), field_bytes = u16(extra + 2);
        if (field_bytes > extra_bytes - 4)
            return false;
        if (id == EXTRA_ZIP64) {
            const uint8_t *at = extra + 4;
            for (size_t i = 0; i < count; i++) {
                if (*values[i] != UINT32_MAX)
                    continue;
                if (at + 8 > extra + 4 + field_bytes)
                    return false;
                *values[i] = u64(at);
                at += 8;
            }
            return true;
        }
        extra += 4 + field_bytes;
        extra_bytes -= 4 + field_bytes;
    }
    return true; /* no zip64 field: the 32-bit values stand as they are */
}

/* One central directory header at `header`, of which `room` bytes are left. */
static int read_entry(const uint8_t *data, uint64_t bytes, const uint8_t *header, uint64_t room, const char *what,
                      struct zip_entry *entry, size_t *header_bytes, struct error *error)
{
    if (room < CENTRAL_BYTES || memcmp(header, "PK\1\2", 4))
        return error_set(error, ERROR_BAD_FILE, "%s: zip directory is damaged", what);
    size_t name_bytes = u16(header + 28), extra_bytes = u16(header + 30), comment_bytes = u16(header + 32);
    *header_bytes = CENTRAL_BYTES + name_bytes + extra_bytes + comment_bytes;
    if (*header_bytes > room)
        return error_set(error, ERROR_BAD_FILE, "%s: zip directory is damaged", what);
    *entry = (struct zip_entry){
        .name = (const char *)header + CENTRAL_BYTES, .name_bytes = name_bytes, .crc32 = u32(header + 16)};
    int shown = name_bytes > 200 ? 200 : (int)name_bytes;

    if (u16(header + 8) & FLAG_ENCRYPTED)
        return error_set(error, ERROR_BAD_FILE, "%s: zip entry %.*s is encrypted", what, shown, entry->name);
    if (u16(header + 10) != 0)
        return error_set(error, ERROR_BAD_FILE,
                         "%s: zip entry %.*s is compressed; torch.save() stores entries as they are", what, shown,
                         entry->name);
    uint64_t stored = u32(header + 20), offset = u32(header + 42);
    entry->bytes = u32(header + 24);
    uint64_t *wide[] = {&entry->bytes, &stored, &offset};
    if (!read_zip64_extra(header + CENTRAL_BYTES + name_bytes, extra_bytes, wide, 3) || stored != entry->bytes)
        return error_set(error, ERROR_BAD_FILE, "%s: zip entry %.*s has a damaged size", what, shown, entry->name);

    /* The local header has its own name and extra field before the data. */
    if (bytes < LOCAL_BYTES || offset > bytes - LOCAL_BYTES || memcmp(data + offset, "PK\3\4", 4))
        return error_set(error, ERROR_BAD_FILE, "%s: zip entry %.*s is not where the directory says", what, shown,
                         entry->name);
    const uint8_t *local = data + offset;
    uint64_t local_bytes = LOCAL_BYTES + (uint64_t)u16(local + 26) + u16(local + 28);
    if (local_bytes > bytes - offset || entry->bytes > bytes - offset - local_bytes)
        return error_set(error, ERROR_BAD_FILE, "%s: zip entry %.*s runs past the end of the file: it is truncated",
                         what, shown, entry->name);
    if (u16(local + 26) != name_bytes || memcmp(local + LOCAL_BYTES, entry->name, name_bytes))
        return error_set(error, ERROR_BAD_FILE, "%s: zip entry %.*s has two names", what, shown, entry->name);
    entry->data = local + local_bytes;
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    const struct zip_entry *left = a, *right = b;
    size_t common = left->name_bytes < right->name_bytes ? left->name_bytes : right->name_bytes;
    int order = memcmp(left->name, right->name, common);
    return order ? order : (left->name_bytes > right->name_bytes) - (left->name_bytes < right->name_bytes);
}

int zip_open(struct zip **out, const uint8_t *data, uint64_t bytes, const char *what, struct error *error)
{
    *out = NULL;
    struct directory directory = {0};
    int result = read_end(data, bytes, what, &directory, error);
    if (result)
        return result;
    struct zip *zip = calloc(1, sizeof *zip);
    if (zip)
        zip->entries = calloc(directory.entries + 1, sizeof *zip->entries);
    if (!zip || !zip->entries) {
        zip_close(zip);
        return error_set(error, ERROR_NO_MEMORY, "%s: no memory for its directory", what);
    }
    const uint8_t *at = data + directory.offset;
    uint64_t room = directory.bytes;
    for (; zip->count < directory.entries && !result; zip->count++) {
        size_t header_bytes = 0;
        result = read_entry(data, bytes, at, room, what, &zip->entries[zip->count], &header_bytes, error);
        at += header_bytes;
        room -= header_bytes;
    }
    if (!result) {
        qsort(zip->entries, zip->count, sizeof *zip->entries, compare_names);
        for (size_t i = 1; i < zip->count && !result; i++)
            if (!compare_names(&zip->entries[i - 1], &zip->entries[i]))
                result = error_set(error, ERROR_BAD_FILE, "%s: zip entry %.*s is there twice", what,
                                   zip->entries[i].name_bytes > 200 ? 200 : (int)zip->entries[i].name_bytes,
                                   zip->entries[i].name);
    }
    if (result) {
        zip_close(zip);
        return result;
    }
    *out = zip;
    return 0;
}

void zip_close(struct zip *zip)
{
    if (!zip)
        return;
    free(zip->entries);
    free(zip);
}

size_t zip_count(const struct zip *zip)
{
    return zip->count;
}

const struct zip_entry *zip_at(const struct zip *zip, size_t index)
{
    return index < zip->count ? &zip->entries[index] : NULL;
}

const struct zip_entry *zip_find(const struct zip *zip, const char *name, size_t name_bytes)
{
    const struct zip_entry wanted = {.name = name, .name_bytes = name_bytes};
    return bsearch(&wanted, zip->entries, zip->count, sizeof *zip->entries, compare_names);
}
