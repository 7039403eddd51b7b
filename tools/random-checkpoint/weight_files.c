/* weight_files.c: see weight_files.h.
 *
 * A file's head is made in memory; where every tensor's data goes is known from it. Then threads take pieces of
 * tensors in turn, fill a buffer of their own and write it to its place. What a reader looks for first is written last,
 * so that a file whose making was cut off is not taken for a whole one. Formats: the safetensors specification; the zip
 * file format's notes (entries stored, not compressed) and Python's pickletools for what torch.save() writes.
 */
#include "tools/random-checkpoint/weight_files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>

#include "tools/random-checkpoint/values.h"

enum { PIECE_BYTES = 8 << 20, HOLE_BYTES = 1 << 20, MAX_THREADS = 64, ALIGNMENT = 64 };

/* --- bytes in memory ------------------------------------------------------------------------ */

struct bytes {
    uint8_t *data;
    size_t count, capacity;
    bool failed; /* there was no memory; what was put since is lost */
};

static void put(struct bytes *bytes, const void *data, size_t count)
{
    if (bytes->count + count > bytes->capacity && !bytes->failed) {
        const size_t capacity = 2 * (bytes->count + count);
        uint8_t *larger = realloc(bytes->data, capacity);
        bytes->failed = !larger;
        if (larger) {
            bytes->data = larger;
            bytes->capacity = capacity;
        }
    }
    if (bytes->failed)
        return;
    memcpy(bytes->data + bytes->count, data, count);
    bytes->count += count;
}

static void put_text(struct bytes *bytes, const char *text)
{
    put(bytes, text, strlen(text));
}

/* `size` bytes of a number, little-endian. */
static void put_number(struct bytes *bytes, uint64_t number, size_t size)
{
    uint8_t encoded[8];
    for (size_t i = 0; i < 8; i++)
        encoded[i] = (uint8_t)(number >> 8 * i);
    put(bytes, encoded, size);
}

static int no_memory(const char *path, struct error *error)
{
    return error_set(error, ERROR_NO_MEMORY, "%s: no memory to write it", path);
}

/* --- data ------------------------------------------------------------------------------------- */

struct piece {
    const struct random_tensor *tensor;
    uint64_t first, bytes; /* of the tensor's data */
    uint64_t offset;       /* in the file */
    uint32_t crc32;
    bool is_hole;
};

struct writing {
    int file;
    struct piece *pieces;
    size_t count;
    bool with_crc32;
    atomic_size_t next;
    atomic_int failed; /* errno of the first failure */
};

/* Everything, however often the system writes less. Returns 0 or an errno. */
static int write_at(int file, const uint8_t *data, uint64_t bytes, uint64_t offset)
{
    while (bytes) {
        const ssize_t written = pwrite(file, data, (size_t)bytes, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return written ? errno : ENOSPC;
        data += written;
        bytes -= (uint64_t)written;
        offset += (uint64_t)written;
    }
    return 0;
}

static void *write_pieces(void *argument)
{
    struct writing *w = argument;
    uint8_t *buffer = malloc(PIECE_BYTES);
    if (!buffer)
        atomic_store(&w->failed, ENOMEM);
    for (size_t i; buffer && !atomic_load(&w->failed) && (i = atomic_fetch_add(&w->next, 1)) < w->count;) {
        struct piece *piece = &w->pieces[i];
        if (piece->is_hole)
            memset(buffer, 0, piece->bytes);
        else
            random_tensor_fill(piece->tensor, piece->first, piece->bytes, buffer);
        if (w->with_crc32)
            piece->crc32 = (uint32_t)crc32(0, buffer, (uInt)piece->bytes);
        const uint64_t left_out = piece->is_hole ? piece->bytes - 1 : 0; /* the last byte makes the file as long */
        const int failed =
            write_at(w->file, buffer + left_out, piece->bytes - left_out, piece->offset + left_out);
        if (failed)
            atomic_store(&w->failed, failed);
    }
    free(buffer);
    return NULL;
}

/* The pieces of all tensors, tensor i's data starting at offsets[i] of the file. NULL without memory. */
static struct piece *cut(const struct tensor_list *list, const uint64_t *offsets, size_t *count)
{
    size_t pieces = 0;
    for (size_t i = 0; i < list->count; i++)
        pieces += (size_t)((random_tensor_bytes(&list->tensors[i]) + PIECE_BYTES - 1) / PIECE_BYTES);
    struct piece *cut = calloc(pieces + 1, sizeof *cut);
    *count = 0;
    for (size_t i = 0; i < list->count && cut; i++) {
        const uint64_t bytes = random_tensor_bytes(&list->tensors[i]);
        for (uint64_t first = 0; first < bytes; first += PIECE_BYTES)
            cut[(*count)++] = (struct piece){
                .tensor = &list->tensors[i],
                .first = first,
                .bytes = bytes - first < PIECE_BYTES ? bytes - first : PIECE_BYTES,
                .offset = offsets[i] + first,
                .is_hole = list->is_hollow && bytes >= HOLE_BYTES,
            };
    }
    return cut;
}

/* All data, and its CRC-32 by tensor if `crcs` is not NULL. */
static int write_data(int file, const char *path, const struct tensor_list *list, const uint64_t *offsets, int threads,
                      uint32_t *crcs, struct error *error)
{
    struct writing w = {.file = file, .with_crc32 = crcs != NULL};
    w.pieces = cut(list, offsets, &w.count);
    if (!w.pieces)
        return no_memory(path, error);
    pthread_t others[MAX_THREADS];
    int started = 0;
    while (started < threads - 1 && started < MAX_THREADS &&
           !pthread_create(&others[started], NULL, write_pieces, &w))
        started++;
    write_pieces(&w);
    while (started)
        pthread_join(others[--started], NULL);
    for (size_t i = 0, tensor = 0; crcs && i < w.count; i++) {
        tensor = (size_t)(w.pieces[i].tensor - list->tensors);
        crcs[tensor] = w.pieces[i].first
                           ? (uint32_t)crc32_combine(crcs[tensor], w.pieces[i].crc32, (z_off_t)w.pieces[i].bytes)
                           : w.pieces[i].crc32;
    }
    free(w.pieces);
    const int failed = atomic_load(&w.failed);
    return failed ? error_set(error, ERROR_IO, "%s: %s", path, strerror(failed)) : 0;
}

static int create(const char *path, int *file, struct error *error)
{
    *file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return *file < 0 ? error_set(error, ERROR_IO, "%s: %s", path, strerror(errno)) : 0;
}

static int finish(int file, const char *path, int result, struct error *error)
{
    if (close(file) && !result)
        result = error_set(error, ERROR_IO, "%s: %s", path, strerror(errno));
    if (result)
        unlink(path);
    return result;
}

static int write_head(int file, const char *path, const struct bytes *bytes, uint64_t offset, struct error *error)
{
    if (bytes->failed)
        return no_memory(path, error);
    const int failed = write_at(file, bytes->data, bytes->count, offset);
    return failed ? error_set(error, ERROR_IO, "%s: %s", path, strerror(failed)) : 0;
}

uint64_t weights_bytes(const struct tensor_list *list)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < list->count; i++)
        bytes += random_tensor_bytes(&list->tensors[i]);
    return bytes;
}

/* --- safetensors --------------------------------------------------------------------------------- */

/* The header with its length in front; offsets[i] becomes where tensor i's data starts. */
static void safetensors_head(const struct tensor_list *list, uint64_t *offsets, struct bytes *out)
{
    uint64_t at = 0;
    put_number(out, 0, 8);
    put_text(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < list->count; i++) {
        const struct random_tensor *tensor = &list->tensors[i];
        const uint64_t end = at + random_tensor_bytes(tensor);
        char text[512];
        int used = snprintf(text, sizeof text, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", tensor->name,
                            dtype_name(tensor->dtype));
        for (int d = 0; d < tensor->dimensions; d++)
            used += snprintf(text + used, sizeof text - (size_t)used, "%s%llu", d ? "," : "",
                             (unsigned long long)tensor->shape[d]);
        snprintf(text + used, sizeof text - (size_t)used, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                 (unsigned long long)end);
        put_text(out, text);
        offsets[i] = at;
        at = end;
    }
    put_text(out, "}");
    while (out->count % ALIGNMENT && !out->failed)
        put_text(out, " ");
    for (size_t i = 0; i < list->count; i++)
        offsets[i] += out->count;
    for (size_t i = 0; i < 8 && !out->failed; i++)
        out->data[i] = (uint8_t)((uint64_t)(out->count - 8) >> 8 * i);
}

int weights_write_safetensors(const char *path, const struct tensor_list *list, int threads, struct error *error)
{
    int file, result = create(path, &file, error);
    if (result)
        return result;
    struct bytes head = {0};
    uint64_t *offsets = calloc(list->count + 1, sizeof *offsets);
    if (offsets) {
        safetensors_head(list, offsets, &head);
        result = head.failed ? no_memory(path, error) : write_data(file, path, list, offsets, threads, NULL, error);
        if (!result)
            result = write_head(file, path, &head, 0, error);
    } else {
        result = no_memory(path, error);
    }
    free(offsets);
    free(head.data);
    return finish(file, path, result, error);
}

/* --- .pth --------------------------------------------------------------------------------------------- */

static void pickle_text(struct bytes *out, const char *text)
{
    put_text(out, "X"); /* BINUNICODE */
    put_number(out, strlen(text), 4);
    put_text(out, text);
}

/* A whole number below 2^31. */
static void pickle_number(struct bytes *out, uint64_t number)
{
    put_text(out, "J"); /* BININT */
    put_number(out, number, 4);
}

/* One item of the state dict: its name and torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, False, {}). */
static void pickle_tensor(struct bytes *out, const struct random_tensor *tensor, size_t number)
{
    char key[24];
    uint64_t elements = 1, strides[5];
    for (int d = tensor->dimensions; d-- > 0; elements *= tensor->shape[d])
        strides[d] = elements;
    snprintf(key, sizeof key, "%zu", number);
    pickle_text(out, tensor->name);
    put_text(out, "ctorch._utils\n_rebuild_tensor_v2\n((");
    pickle_text(out, "storage");
    put_text(out, "ctorch\nFloatStorage\n");
    pickle_text(out, key);
    pickle_text(out, "cpu");
    pickle_number(out, elements);
    put_text(out, "tQ"); /* TUPLE, BINPERSID */
    pickle_number(out, 0);
    put_text(out, "(");
    for (int d = 0; d < tensor->dimensions; d++)
        pickle_number(out, tensor->shape[d]);
    put_text(out, "t(");
    for (int d = 0; d < tensor->dimensions; d++)
        pickle_number(out, strides[d]);
    put_text(out, "t\x89"); /* TUPLE, NEWFALSE */
    put_text(out, "ccollections\nOrderedDict\n)RtR");
}

static void pickle_state_dict(const struct tensor_list *list, struct bytes *out)
{
    put_text(out, "\x80\x02}("); /* PROTO 2, EMPTY_DICT, MARK */
    for (size_t i = 0; i < list->count; i++)
        pickle_tensor(out, &list->tensors[i], i);
    put_text(out, "u."); /* SETITEMS, STOP */
}

struct entry {
    char name[48];
    uint64_t bytes, header; /* where its local header is */
    uint32_t crc32;
    size_t padding;         /* in the extra field, so that data starts at a multiple of ALIGNMENT */
};

enum { LOCAL_HEADER_BYTES = 30 };

/* Give an entry its place at `*at`, which moves on; returns where the data starts. */
static uint64_t place(struct entry *entry, uint64_t *at)
{
    const uint64_t unpadded = *at + LOCAL_HEADER_BYTES + strlen(entry->name) + 4;
    entry->header = *at;
    entry->padding = (size_t)((ALIGNMENT - unpadded % ALIGNMENT) % ALIGNMENT);
    *at = unpadded + entry->padding + entry->bytes;
    return unpadded + entry->padding;
}

/* The fields that local headers and the central directory have in common. */
static void put_entry_fields(struct bytes *out, const struct entry *entry, size_t extra)
{
    put_number(out, 0, 2);    /* version needed */
    put_number(out, 0, 2);    /* flags */
    put_number(out, 0, 2);    /* stored */
    put_number(out, 0, 4);    /* time and date */
    put_number(out, entry->crc32, 4);
    put_number(out, entry->bytes, 4);
    put_number(out, entry->bytes, 4);
    put_number(out, strlen(entry->name), 2);
    put_number(out, extra, 2);
}

static void put_local_header(struct bytes *out, const struct entry *entry)
{
    put_text(out, "PK\x03\x04");
    put_entry_fields(out, entry, 4 + entry->padding);
    put_text(out, entry->name);
    put_text(out, "FB");      /* the extra field that torch.save() pads with */
    put_number(out, entry->padding, 2);
    for (size_t i = 0; i < entry->padding; i++)
        put_text(out, "Z");
}

static void put_directory(struct bytes *out, const struct entry *entries, size_t count, uint64_t at)
{
    for (size_t i = 0; i < count; i++) {
        put_text(out, "PK\x01\x02");
        put_number(out, 0, 2); /* made by */
        put_entry_fields(out, &entries[i], 0);
        put_number(out, 0, 2); /* comment */
        put_number(out, 0, 2); /* disk */
        put_number(out, 0, 2); /* internal attributes */
        put_number(out, 0, 4); /* external attributes */
        put_number(out, entries[i].header, 4);
        put_text(out, entries[i].name);
    }
    const uint64_t bytes = out->count;
    put_text(out, "PK\x05\x06");
    put_number(out, 0, 4);     /* disks */
    put_number(out, count, 2);
    put_number(out, count, 2);
    put_number(out, bytes, 4);
    put_number(out, at, 4);
    put_number(out, 0, 2);     /* comment */
}

/* Small entries in front, then the tensors' data as archive/data/0 and so on, then the directory. */
static int write_archive(int file, const char *path, const struct tensor_list *list, const struct bytes *pickle,
                         int threads, struct entry *entries, uint64_t *offsets, uint32_t *crcs, struct error *error)
{
    enum { SMALL = 3 };
    const struct {
        const char *name;
        const void *data;
        size_t bytes;
    } small[SMALL] = {{"archive/data.pkl", pickle->data, pickle->count}, {"archive/byteorder", "little", 6},
                      {"archive/version", "3\n", 2}};
    const size_t count = SMALL + list->count;
    uint64_t at = 0;
    for (size_t i = 0; i < SMALL; i++) {
        entries[i].bytes = small[i].bytes;
        entries[i].crc32 = (uint32_t)crc32(0, small[i].data, (uInt)small[i].bytes);
        snprintf(entries[i].name, sizeof entries[i].name, "%s", small[i].name);
        place(&entries[i], &at);
    }
    for (size_t i = 0; i < list->count; i++) {
        entries[SMALL + i].bytes = random_tensor_bytes(&list->tensors[i]);
        snprintf(entries[SMALL + i].name, sizeof entries[i].name, "archive/data/%zu", i);
        offsets[i] = place(&entries[SMALL + i], &at);
    }
    if (at + 256 * count > UINT32_MAX)
        return error_set(error, ERROR_UNSUPPORTED, "%s: a .pth of 4 GiB or more cannot be written", path);
    int result = write_data(file, path, list, offsets, threads, crcs, error);
    for (size_t i = 0; i < list->count; i++)
        entries[SMALL + i].crc32 = crcs[i];
    for (size_t i = 0; i < count && !result; i++) {
        struct bytes head = {0};
        put_local_header(&head, &entries[i]);
        if (i < SMALL)
            put(&head, small[i].data, small[i].bytes);
        result = write_head(file, path, &head, entries[i].header, error);
        free(head.data);
    }
    struct bytes directory = {0};
    put_directory(&directory, entries, count, at);
    if (!result)
        result = write_head(file, path, &directory, at, error);
    free(directory.data);
    return result;
}

int weights_write_pth(const char *path, const struct tensor_list *list, int threads, struct error *error)
{
    int file, result = create(path, &file, error);
    if (result)
        return result;
    struct bytes pickle = {0};
    pickle_state_dict(list, &pickle);
    uint64_t *offsets = calloc(list->count + 1, sizeof *offsets);
    uint32_t *crcs = calloc(list->count + 1, sizeof *crcs);
    struct entry *entries = calloc(list->count + 4, sizeof *entries);
    if (offsets && crcs && entries && !pickle.failed)
        result = write_archive(file, path, list, &pickle, threads, entries, offsets, crcs, error);
    else
        result = no_memory(path, error);
    free(entries);
    free(crcs);
    free(offsets);
    free(pickle.data);
    return finish(file, path, result, error);
}
