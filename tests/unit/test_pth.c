/* Tests of daemon/engine/model/checkpoint/pth.c and zip.c: files as torch.save() writes them are read, everything else
 * is refused by its name, and no damaged or hostile file crashes the reader (run under the sanitizers too).
 *
 * Files are built here byte by byte, because the point is what torch.save() would never write; the demo model's
 * VAE is a file that it did write. */
#include "daemon/engine/model/checkpoint/pth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <zlib.h>

#include "base/mapped_file.h"

/* --- building files ------------------------------------------------------------------- */

struct bytes {
    uint8_t data[1 << 16];
    size_t count;
};

static void put(struct bytes *bytes, const void *data, size_t count)
{
    assert_true(bytes->count + count <= sizeof bytes->data);
    memcpy(bytes->data + bytes->count, data, count);
    bytes->count += count;
}

static void put_integer(struct bytes *bytes, uint64_t value, size_t width)
{
    for (size_t i = 0; i < width; i++)
        put(bytes, &(uint8_t){(uint8_t)(value >> 8 * i)}, 1);
}

static void put_text(struct bytes *bytes, const char *text)
{
    put(bytes, text, strlen(text));
}

/* BINUNICODE */
static void put_string(struct bytes *pickle, const char *text)
{
    put_text(pickle, "X");
    put_integer(pickle, strlen(text), 4);
    put_text(pickle, text);
}

/* BININT */
static void put_number(struct bytes *pickle, int value)
{
    put_text(pickle, "J");
    put_integer(pickle, (uint32_t)value, 4);
}

static void put_tuple(struct bytes *pickle, int count, const int *values)
{
    put_text(pickle, "(");
    for (int i = 0; i < count; i++)
        put_number(pickle, values[i]);
    put_text(pickle, "t");
}

static void put_storage(struct bytes *pickle, const char *class, const char *key, int elements)
{
    put_text(pickle, "(");
    put_string(pickle, "storage");
    put_text(pickle, class);
    put_string(pickle, key);
    put_string(pickle, "cpu");
    put_number(pickle, elements);
    put_text(pickle, "tQ");
}

#define FLOAT_STORAGE "ctorch\nFloatStorage\n"

/* What a tensor becomes in a pickle: a call of _rebuild_tensor_v2. */
static void put_tensor(struct bytes *pickle, const char *class, const char *key, int elements, int offset,
                       int dimensions, const int *sizes, const int *strides)
{
    put_text(pickle, "ctorch._utils\n_rebuild_tensor_v2\n(");
    put_storage(pickle, class, key, elements);
    put_number(pickle, offset);
    put_tuple(pickle, dimensions, sizes);
    put_tuple(pickle, dimensions, strides);
    put_text(pickle, "\x89" "ccollections\nOrderedDict\n)RtR");
}

struct entry {
    const char *name;
    const void *data;
    size_t bytes;
    int method; /* 0: stored */
};

static void put_entry_sizes(struct bytes *zip, const struct entry *entry, bool zip64)
{
    put_integer(zip, crc32(0, entry->data, (uInt)entry->bytes), 4);
    put_integer(zip, zip64 ? UINT32_MAX : entry->bytes, 4);
    put_integer(zip, zip64 ? UINT32_MAX : entry->bytes, 4);
    put_integer(zip, strlen(entry->name), 2);
}

static void make_zip(struct bytes *zip, const struct entry *entries, size_t count, bool zip64)
{
    size_t offsets[16];
    zip->count = 0;
    for (size_t i = 0; i < count; i++) {
        offsets[i] = zip->count;
        put_text(zip, "PK\3\4");
        put(zip, "\0\0\0\0", 4);
        put_integer(zip, (uint64_t)entries[i].method, 2);
        put_integer(zip, 0, 4);
        put_entry_sizes(zip, &entries[i], false);
        put_integer(zip, 3, 2); /* an extra field, as torch pads with */
        put_text(zip, entries[i].name);
        put_text(zip, "FBZ");
        put(zip, entries[i].data, entries[i].bytes);
    }
    size_t directory = zip->count;
    for (size_t i = 0; i < count; i++) {
        put_text(zip, "PK\1\2");
        put(zip, "\0\0\0\0\0\0", 6);
        put_integer(zip, (uint64_t)entries[i].method, 2);
        put_integer(zip, 0, 4);
        put_entry_sizes(zip, &entries[i], zip64);
        put_integer(zip, zip64 ? 28 : 0, 2);
        put(zip, "\0\0\0\0\0\0\0\0\0\0", 10);
        put_integer(zip, zip64 ? UINT32_MAX : offsets[i], 4);
        put_text(zip, entries[i].name);
        if (zip64) {
            put_integer(zip, 1, 2);
            put_integer(zip, 24, 2);
            put_integer(zip, entries[i].bytes, 8);
            put_integer(zip, entries[i].bytes, 8);
            put_integer(zip, offsets[i], 8);
        }
    }
    size_t end = zip->count;
    if (zip64) {
        put_text(zip, "PK\6\6");
        put_integer(zip, 44, 8);
        put_integer(zip, 0, 4);
        put_integer(zip, 0, 8);
        put_integer(zip, count, 8);
        put_integer(zip, count, 8);
        put_integer(zip, end - directory, 8);
        put_integer(zip, directory, 8);
        put_text(zip, "PK\6\7");
        put_integer(zip, 0, 4);
        put_integer(zip, end, 8);
        put_integer(zip, 1, 4);
    }
    put_text(zip, "PK\5\6");
    put_integer(zip, 0, 4);
    put_integer(zip, zip64 ? UINT16_MAX : count, 2);
    put_integer(zip, zip64 ? UINT16_MAX : count, 2);
    put_integer(zip, zip64 ? UINT32_MAX : end - directory, 4);
    put_integer(zip, zip64 ? UINT32_MAX : directory, 4);
    put_integer(zip, 0, 2);
}

static const float numbers[] = {1, 2, 3, 4, 5, 6, 7, 8};
static const uint16_t halves[] = {0x3c00, 0x4000};

/* A file of this pickle, with the storages "0" (8 floats) and "1" (2 halves). */
static void make_pth(struct bytes *file, const struct bytes *pickle, bool zip64)
{
    const struct entry entries[] = {
        {.name = "vae/data.pkl", .data = pickle->data, .bytes = pickle->count},
        {.name = "vae/byteorder", .data = "little", .bytes = 6},
        {.name = "vae/data/0", .data = numbers, .bytes = sizeof numbers},
        {.name = "vae/data/1", .data = halves, .bytes = sizeof halves},
    };
    make_zip(file, entries, 4, zip64);
}

/* {"w": float [2, 3] from element 1 on, "h": half [2]} */
static void put_good_pickle(struct bytes *pickle)
{
    pickle->count = 0;
    put_text(pickle, "\x80\2}q");
    put(pickle, "\0(", 2);
    put_string(pickle, "w");
    put_tensor(pickle, FLOAT_STORAGE, "0", 8, 1, 2, (int[]){2, 3}, (int[]){3, 1});
    put_string(pickle, "h");
    put_tensor(pickle, "ctorch\nHalfStorage\n", "1", 2, 0, 1, (int[]){2}, (int[]){1});
    put_text(pickle, "u.");
}

/* --- checks ------------------------------------------------------------------------------ */

static void assert_refused(const struct bytes *file, const char *message)
{
    struct error error = {0};
    struct pth *pth = NULL;
    uint8_t *data = malloc(file->count + 1); /* of exact size but for malloc(0), for the address sanitizer */
    memcpy(data, file->data, file->count);
    int result = pth_parse(&pth, data, file->count, "FILE", &error);
    free(data);
    if (result != ERROR_BAD_FILE || pth)
        fail_msg("accepted, should be refused with: %s", message);
    if (!strstr(error.text, message) || strncmp(error.text, "FILE: ", 6))
        fail_msg("gave: %s\n  not:  %s", error.text, message);
}

static void assert_pickle_refused(const struct bytes *pickle, const char *message)
{
    static struct bytes file;
    make_pth(&file, pickle, false);
    assert_refused(&file, message);
}

static void assert_safe(const uint8_t *data, size_t bytes)
{
    struct error error = {0};
    struct pth *pth = NULL;
    int result = pth_parse(&pth, data, bytes, "FILE", &error);
    if (result) {
        assert_null(pth);
        assert_int_equal(result, ERROR_BAD_FILE);
        return;
    }
    for (size_t i = 0; i < pth_count(pth); i++) {
        const struct tensor_view *tensor = pth_at(pth, i);
        const uint8_t *begin = tensor->data;
        assert_true(begin >= data && begin <= data + bytes && tensor->bytes <= (uint64_t)(data + bytes - begin));
        assert_int_equal(tensor_elements(tensor) * dtype_bytes(tensor->dtype), tensor->bytes);
        assert_ptr_equal(pth_find(pth, tensor->name), tensor);
    }
    pth_close(pth);
}

/* --- tests -------------------------------------------------------------------------------- */

static void a_state_dict_gives_its_tensors(void **state)
{
    (void)state;
    static struct bytes pickle, file;
    for (int zip64 = 0; zip64 < 2; zip64++) {
        struct error error = {0};
        struct pth *pth;
        put_good_pickle(&pickle);
        make_pth(&file, &pickle, zip64);
        if (pth_parse(&pth, file.data, file.count, "FILE", &error))
            fail_msg("%s", error.text);
        assert_int_equal(pth_count(pth), 2);
        const struct tensor_view *w = pth_find(pth, "w"), *h = pth_find(pth, "h");
        assert_true(tensor_is(w, DTYPE_F32, 2, (uint64_t[]){2, 3}));
        assert_memory_equal(w->data, numbers + 1, 24);
        assert_true(tensor_is(h, DTYPE_F16, 1, (uint64_t[]){2}));
        assert_memory_equal(h->data, halves, 4);
        assert_null(pth_find(pth, "v"));
        assert_string_equal(pth_at(pth, 0)->name, "h");
        pth_close(pth);
    }
}

static void parameters_shared_storages_and_module_versions_are_understood(void **state)
{
    (void)state;
    static struct bytes pickle, file;
    struct error error = {0};
    struct pth *pth;
    pickle.count = 0;
    /* OrderedDict(); the storage goes through the memo (slot 300); a Parameter; _metadata set by BUILD */
    put_text(&pickle, "\x80\2" "ccollections\nOrderedDict\n)R(");
    put_string(&pickle, "first");
    put_text(&pickle, "ctorch._utils\n_rebuild_tensor_v2\n(");
    put_storage(&pickle, FLOAT_STORAGE, "0", 8);
    put_text(&pickle, "r");
    put_integer(&pickle, 300, 4);
    put_text(&pickle, "K");
    put_integer(&pickle, 0, 1);
    put_text(&pickle, "K\2\x85K\1\x85\x88}tR");
    put_string(&pickle, "second");
    put_text(&pickle, "ctorch._utils\n_rebuild_parameter\n(ctorch._utils\n_rebuild_tensor_v2\n(j");
    put_integer(&pickle, 300, 4);
    put_text(&pickle, "K\4K\2K\2\x86K\2K\1\x86\x89}tR\x88}tRu}");
    put_string(&pickle, "_metadata");
    put_text(&pickle, "}sb.");
    make_pth(&file, &pickle, false);
    if (pth_parse(&pth, file.data, file.count, "FILE", &error))
        fail_msg("%s", error.text);
    assert_int_equal(pth_count(pth), 2);
    assert_memory_equal(pth_find(pth, "first")->data, numbers, 8);
    assert_memory_equal(pth_find(pth, "second")->data, numbers + 4, 16);
    assert_true(tensor_is(pth_find(pth, "second"), DTYPE_F32, 2, (uint64_t[]){2, 2}));
    pth_close(pth);
}

static void a_file_written_by_torch_is_read(void **state)
{
    (void)state;
    struct error error = {0};
    struct mapped_file file;
    struct pth *pth = NULL;
    if (mapped_file_open(&file, "demo/lance-demo/Wan2.2_VAE.pth", &error) ||
        pth_parse(&pth, file.data, file.bytes, "FILE", &error))
        fail_msg("%s", error.text);
    assert_int_equal(pth_count(pth), 196);
    const struct tensor_view *conv = pth_find(pth, "conv2.weight");
    assert_true(tensor_is(conv, DTYPE_BF16, 5, (uint64_t[]){48, 48, 1, 1, 1}));
    pth_close(pth);
    mapped_file_close(&file);
}

static void a_pickle_that_would_run_something_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *pickle, *message;
    } cases[] = {
        {"\x80\2cos\nsystem\n(X\2\0\0\0lstR.", "wants os.system, which is refused"},
        {"\x80\2c__builtin__\neval\n.", "wants __builtin__.eval"},
        {"\x80\2ctorch\nload\n.", "wants torch.load"},
        {"\x80\2ctorch._utils\n_rebuild_tensor\n.", "wants torch._utils._rebuild_tensor,"},
        {"\x80\2cbad\x1b[2J\nname\n.", "wants bad?[2J.name"},
        {"\x80\2(ios\nsystem\n.", "instruction INST (0x69)"},
        {"\x80\2(cos\n", "ends within a name"},
        {"\x80\2\x93.", "instruction STACK_GLOBAL (0x93)"},
        {"\x80\2" "}\x81.", "instruction NEWOBJ (0x81)"},
        {"\x80\2].", "instruction EMPTY_LIST (0x5d)"},
        {"\x80\2\xff.", "instruction unknown (0xff)"},
        {"\x80\4}.", "pickle protocol 4"},
        {"\x80\2ccollections\nOrderedDict\n(K\1tR.", "calls collections.OrderedDict with arguments"},
        {"\x80\2" FLOAT_STORAGE ")R.", "calls torch.FloatStorage with arguments"},
    };
    static struct bytes pickle;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pickle.count = 0;
        /* The first case has zero bytes in it: its length is not strlen's. */
        if (i == 0)
            put(&pickle, "\x80\2cos\nsystem\n(X\2\0\0\0lstR.", 24);
        else
            put_text(&pickle, cases[i].pickle);
        assert_pickle_refused(&pickle, cases[i].message);
    }
}

static void a_pickle_that_is_no_state_dict_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *pickle, *message;
    } cases[] = {
        {"", "ends within an instruction"},
        {"\x80\2", "ends within an instruction"},
        {".", "empty stack"},
        {"N.", "does not hold a state dict"},
        {"NN.", "does not hold a state dict"},
        {"(.", "uses a mark as a value"},
        {"t.", "lacks a mark"},
        {"N(u.", "no dict"},
        {"}(Nu.", "no dict"},
        {"}(NNu.", "without a proper name"},
        {"}NN.", "does not hold a state dict"},
        {"h\1.", "empty memo slot"},
        {"q\1.", "empty stack"},
        {"}r\xff\xff\xff\x7f.", "memo slot over the limit"},
        {"}NR.", "calls something that is no function"},
        {"NQ.", "refers to something outside"},
        {"NNb.", "sets attributes"},
        {"\x8a\x09" "123456789.", "over 64 bits"},
        {"X\xff\xff\xff\xff.", "ends within an instruction"},
    };
    static struct bytes pickle;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pickle.count = 0;
        put_text(&pickle, cases[i].pickle);
        assert_pickle_refused(&pickle, cases[i].message);
    }
    pickle.count = 0;
    put_text(&pickle, "}(");
    put_string(&pickle, "epoch");
    put_text(&pickle, "K\3u.");
    assert_pickle_refused(&pickle, "\"epoch\" is not a tensor");
    pickle.count = 0;
    put_text(&pickle, "}(");
    for (int i = 0; i < 2; i++) {
        put_string(&pickle, "same");
        put_tensor(&pickle, FLOAT_STORAGE, "0", 8, 0, 1, (int[]){1}, (int[]){1});
    }
    put_text(&pickle, "u.");
    assert_pickle_refused(&pickle, "\"same\" is there twice");
}

static void a_tensor_that_does_not_lie_in_its_storage_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *class, *key;
        int elements, offset, dimensions, sizes[9], strides[9];
        const char *message;
    } cases[] = {
        {FLOAT_STORAGE, "0", 8, 0, 1, {9}, {1}, "not within its storage"},
        {FLOAT_STORAGE, "0", 8, 1, 1, {8}, {1}, "not within its storage"},
        {FLOAT_STORAGE, "0", 8, -1, 1, {2}, {1}, "not within its storage"},
        {FLOAT_STORAGE, "0", 8, 9, 1, {0}, {1}, "not within its storage"},
        {FLOAT_STORAGE, "0", 8, 0, 1, {-1}, {1}, "not within its storage"},
        {FLOAT_STORAGE, "0", 8, 0, 2, {2, 3}, {1, 2}, "not contiguous"},
        {FLOAT_STORAGE, "0", 8, 0, 2, {2, 3}, {0, 0}, "not contiguous"},
        {FLOAT_STORAGE, "0", 8, 0, 4, {65536, 65536, 65536, 65536}, {0, 0, 0, 0}, "not within its storage"},
        {FLOAT_STORAGE, "0", 8, 0, 9, {1, 1, 1, 1, 1, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 1, 1, 1},
         "not within its storage"},
        {FLOAT_STORAGE, "0", 9, 0, 1, {1}, {1}, "entry vae/data/0 has 32 bytes, not the 9 numbers of type F32"},
        {FLOAT_STORAGE, "0", 7, 0, 1, {1}, {1}, "entry vae/data/0 has 32 bytes"},
        {"ctorch\nDoubleStorage\n", "0", 8, 0, 1, {1}, {1}, "8 numbers of type F64"},
        {FLOAT_STORAGE, "2", 8, 0, 1, {1}, {1}, "entry vae/data/2 is missing"},
        {FLOAT_STORAGE, "0", -8, 0, 1, {1}, {1}, "without a key or a size"},
        {"ccollections\nOrderedDict\n", "0", 8, 0, 1, {1}, {1}, "storage of an unknown class"},
        {"N", "0", 8, 0, 1, {1}, {1}, "storage of an unknown class"},
    };
    static struct bytes pickle;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pickle.count = 0;
        put_text(&pickle, "}(");
        put_string(&pickle, "t");
        put_tensor(&pickle, cases[i].class, cases[i].key, cases[i].elements, cases[i].offset, cases[i].dimensions,
                   cases[i].sizes, cases[i].strides);
        put_text(&pickle, "u.");
        assert_pickle_refused(&pickle, cases[i].message);
    }
}

static void an_endless_pickle_ends(void **state)
{
    (void)state;
    static struct bytes pickle;
    pickle.count = 0;
    memset(pickle.data, 'N', sizeof pickle.data);
    pickle.count = sizeof pickle.data - 1024;
    assert_pickle_refused(&pickle, "ends within an instruction");
    /* 2^63 items if tuples were copied: each holds the one before three times */
    pickle.count = 0;
    put_text(&pickle, ")q");
    put_integer(&pickle, 0, 1);
    for (int i = 0; i < 8000; i++) {
        put(&pickle, "h\0h\0\x87", 5);
        put(&pickle, "q\0", 2);
    }
    assert_pickle_refused(&pickle, "ends within an instruction");
}

static void archives_that_torch_does_not_write_are_refused(void **state)
{
    (void)state;
    static struct bytes pickle, file;
    put_good_pickle(&pickle);
    const struct entry good = {.name = "a/data.pkl", .data = pickle.data, .bytes = pickle.count};
    struct entry entries[2] = {good, good};
    make_zip(&file, entries, 2, false);
    assert_refused(&file, "zip entry a/data.pkl is there twice");
    entries[1].name = "b/data.pkl";
    make_zip(&file, entries, 2, false);
    assert_refused(&file, "more than one data.pkl");
    entries[0].name = "readme.txt";
    make_zip(&file, entries, 1, false);
    assert_refused(&file, "no data.pkl in it");
    entries[0] = good;
    entries[0].method = 8;
    make_zip(&file, entries, 1, false);
    assert_refused(&file, "zip entry a/data.pkl is compressed");
    entries[0] = good;
    entries[1] = (struct entry){.name = "a/byteorder", .data = "big", .bytes = 3};
    make_zip(&file, entries, 2, false);
    assert_refused(&file, "not little-endian");
    make_zip(&file, entries, 1, false);
    file.data[60] ^= 1;
    assert_refused(&file, "data.pkl is damaged (its checksum differs)");

    file.count = 0;
    put_text(&file, "\x80\2\x8a\nl\xfc\x9c\x46\xf9\x20j\xa8P\x19.");
    assert_refused(&file, "from before PyTorch 1.6");
    file.count = 0;
    put_text(&file, "hello");
    assert_refused(&file, "not a .pth file");
    file.count = 0;
    assert_refused(&file, "not a .pth file");
}

static void a_file_cut_at_any_byte_is_refused(void **state)
{
    (void)state;
    static struct bytes pickle, file;
    put_good_pickle(&pickle);
    for (int zip64 = 0; zip64 < 2; zip64++) {
        make_pth(&file, &pickle, zip64);
        for (size_t whole = file.count; file.count-- > 0 && whole;)
            assert_refused(&file, "");
    }
}

static void a_file_with_any_bit_flipped_is_refused_or_safe(void **state)
{
    (void)state;
    static struct bytes pickle, file;
    put_good_pickle(&pickle);
    for (int zip64 = 0; zip64 < 2; zip64++) {
        make_pth(&file, &pickle, zip64);
        uint8_t *data = malloc(file.count);
        memcpy(data, file.data, file.count);
        for (size_t i = 0; i < file.count; i++)
            for (int bit = 0; bit < 8; bit++) {
                data[i] ^= (uint8_t)(1 << bit);
                assert_safe(data, file.count);
                data[i] ^= (uint8_t)(1 << bit);
            }
        free(data);
    }
}

static void random_changes_to_a_pickle_are_refused_or_safe(void **state)
{
    (void)state;
    static const char alphabet[] = "(.NJKMXc)tus}qrhjRbQ\x80\x85\x86\x87\x88\x89\x8a\0\1\2\xff";
    static struct bytes whole, pickle, file;
    put_good_pickle(&whole);
    uint64_t random = 1;
    for (int round = 0; round < 20000; round++) {
        pickle = whole;
        for (int change = 0; change <= round % 4; change++) {
            random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            pickle.data[(size_t)(random >> 33) % pickle.count] = (uint8_t)alphabet[(random >> 20) % sizeof alphabet];
        }
        make_pth(&file, &pickle, false); /* with a checksum that fits */
        uint8_t *data = malloc(file.count);
        memcpy(data, file.data, file.count);
        assert_safe(data, file.count);
        free(data);
    }
}

static void a_torch_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    struct error error = {0};
    struct mapped_file file;
    assert_int_equal(mapped_file_open(&file, "demo/lance-demo/Wan2.2_VAE.pth", &error), 0);
    for (uint64_t bytes = 0; bytes < file.bytes; bytes += file.bytes / 97) {
        struct pth *pth;
        assert_int_equal(pth_parse(&pth, file.data, bytes, "FILE", &error), ERROR_BAD_FILE);
    }
    mapped_file_close(&file);
}

/* {"format": 1, "tasks": [..], "stats": {layer: {"sum_abs", "n_tokens", "n_calls"}}}, as torch.save() wrote it. */
#define STATISTICS "tests/golden/data/quant/demo/act_stats.pt"

static void dicts_within_dicts_are_read_when_that_is_asked_for(void **state)
{
    (void)state;
    struct error error = {0};
    struct mapped_file file;
    struct pth *pth;
    assert_int_equal(mapped_file_open(&file, STATISTICS, &error), 0);
    assert_int_equal(pth_parse(&pth, file.data, file.bytes, "FILE", &error), ERROR_BAD_FILE);
    mapped_file_close(&file);
    assert_int_equal(pth_open_nested(&pth, STATISTICS, &error), 0);
    const struct tensor_view *task = pth_find(pth, "tasks/1"), *format = pth_find(pth, "format");
    assert_non_null(task);
    assert_int_equal(task->bytes, strlen("image_edit"));
    assert_memory_equal(task->data, "image_edit", strlen("image_edit"));
    assert_non_null(format);
    assert_int_equal(format->dtype, DTYPE_I64);
    assert_int_equal(*(const int64_t *)format->data, 1);
    const struct tensor_view *sum = pth_find(pth, "stats/language_model.model.layers.3.mlp_moe_gen.down_proj/sum_abs");
    assert_non_null(sum);
    assert_int_equal(sum->dtype, DTYPE_F32);
    assert_int_equal(sum->shape[0], 384);
    assert_int_equal(pth_count(pth), 2 + 7 + 3 * 56); /* "n_linears" beside "format" */
    pth_close(pth);
}

static void a_file_of_statistics_cut_anywhere_is_refused(void **state)
{
    (void)state;
    struct error error = {0};
    struct mapped_file file;
    assert_int_equal(mapped_file_open(&file, STATISTICS, &error), 0);
    char path[] = "/tmp/lance-statistics-XXXXXX";
    const int copy = mkstemp(path);
    assert_true(copy >= 0);
    assert_int_equal(write(copy, file.data, file.bytes), file.bytes);
    for (uint64_t cut = file.bytes / 97; cut <= file.bytes; cut += file.bytes / 97) {
        struct pth *pth;
        assert_int_equal(ftruncate(copy, (off_t)(file.bytes - cut)), 0);
        assert_int_equal(pth_open_nested(&pth, path, &error), ERROR_BAD_FILE);
    }
    close(copy);
    unlink(path);
    mapped_file_close(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_state_dict_gives_its_tensors),
        cmocka_unit_test(parameters_shared_storages_and_module_versions_are_understood),
        cmocka_unit_test(a_file_written_by_torch_is_read),
        cmocka_unit_test(a_pickle_that_would_run_something_is_refused_by_name),
        cmocka_unit_test(a_pickle_that_is_no_state_dict_is_refused),
        cmocka_unit_test(a_tensor_that_does_not_lie_in_its_storage_is_refused),
        cmocka_unit_test(an_endless_pickle_ends),
        cmocka_unit_test(archives_that_torch_does_not_write_are_refused),
        cmocka_unit_test(a_file_cut_at_any_byte_is_refused),
        cmocka_unit_test(a_file_with_any_bit_flipped_is_refused_or_safe),
        cmocka_unit_test(random_changes_to_a_pickle_are_refused_or_safe),
        cmocka_unit_test(a_torch_file_cut_anywhere_is_refused),
        cmocka_unit_test(dicts_within_dicts_are_read_when_that_is_asked_for),
        cmocka_unit_test(a_file_of_statistics_cut_anywhere_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
