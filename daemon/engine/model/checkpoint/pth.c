/* pth.c: see pth.h. The archive, and what tensors its pickle describes; pickle.c runs it.
 *
 * Sources: the file format notes of torch.serialization.
 */
#include "daemon/engine/model/checkpoint/pth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "base/mapped_file.h"
#include "daemon/engine/model/checkpoint/pickle.h"

enum {
    MAX_PICKLE_BYTES = 16 << 20,
    MAX_NESTING = 8 /* dicts and lists within each other */
};

struct pth {
    struct mapped_file mapping; /* empty when the buffer is the caller's */
    struct tensor_view *tensors; /* sorted by name */
    size_t count;
    int64_t *numbers;            /* that tensors show */
};

/* --- from machine to tensors ----------------------------------------------------------- */

static bool is_printable_name(const struct value *key)
{
    if (key->kind != VALUE_STRING || key->count == 0 || key->count > MAX_NAME_BYTES)
        return false;
    for (uint32_t i = 0; i < key->count; i++)
        if ((unsigned char)key->string[i] < 0x20 || key->string[i] == 0x7f)
            return false;
    return true;
}

/* A walk through the dicts, from the root on. */
struct collection {
    struct machine *machine;
    struct pth *pth;
    const struct dict_item *items; /* sorted by dict */
    size_t count, visited;
    char name[MAX_NAME_BYTES]; /* of what is being looked at: the keys that lead to it */
};

static int compare_items(const void *a, const void *b)
{
    const struct dict_item *left = a, *right = b;
    if (left->dict != right->dict)
        return left->dict < right->dict ? -1 : 1;
    return left->number < right->number ? -1 : left->number > right->number;
}

static int no_memory(const struct machine *machine)
{
    return error_set(machine->error, ERROR_NO_MEMORY, "%s: no memory for its tensors", machine->what);
}

static int add_tensor(struct collection *c, const struct tensor_view *view)
{
    char *name = strdup(c->name);
    if (!name)
        return no_memory(c->machine);
    struct tensor_view *tensor = &c->pth->tensors[c->pth->count++];
    *tensor = *view;
    tensor->name = name;
    return 0;
}

/* A number or a text, shown as a tensor; anything else that is no tensor is passed over. */
static int add_other(struct collection *c, const struct value *value)
{
    if (value->kind == VALUE_STRING)
        return add_tensor(c, &(struct tensor_view){.dtype = DTYPE_U8, .dimensions = 1, .shape = {value->count},
                                                   .data = value->string, .bytes = value->count});
    if (value->kind != VALUE_INTEGER && value->kind != VALUE_BOOL)
        return 0;
    int64_t *number = &c->pth->numbers[c->pth->count];
    *number = value->integer;
    return add_tensor(c, &(struct tensor_view){.dtype = DTYPE_I64, .data = number, .bytes = sizeof *number});
}

/* Put a key behind the name; *length is what it was before. */
static int enter(struct collection *c, const struct dict_item *item, size_t place, size_t *length)
{
    const char *between = *(c->name) ? "/" : "";
    *length = strlen(c->name);
    const size_t room = sizeof c->name - *length;
    int used;
    if (item->key.kind == VALUE_INTEGER && c->machine->nested)
        used = snprintf(c->name + *length, room, "%s%zu", between, place);
    else if (is_printable_name(&item->key))
        used = snprintf(c->name + *length, room, "%s%.*s", between, (int)item->key.count, item->key.string);
    else
        return pickle_fail(c->machine, "has a tensor without a proper name");
    return (size_t)used < room ? 0 : pickle_fail(c->machine, "has a tensor with too long a name");
}

static int collect_dict(struct collection *c, size_t dict, int depth);

static int collect_value(struct collection *c, const struct value *value, int depth)
{
    const struct tensor_view *tensors = c->machine->tensors.items;
    if (value->kind == VALUE_TENSOR)
        return add_tensor(c, &tensors[value->index]);
    if (!c->machine->nested)
        return error_set(c->machine->error, ERROR_BAD_FILE,
                         "%s: \"%.200s\" is not a tensor; only a plain state dict is read", c->machine->what, c->name);
    if (value->kind == VALUE_DICT || value->kind == VALUE_LIST)
        return depth < MAX_NESTING ? collect_dict(c, value->index, depth + 1)
                                   : pickle_fail(c->machine, "holds dicts within dicts without end");
    return add_other(c, value);
}

static int collect_dict(struct collection *c, size_t dict, int depth)
{
    size_t low = 0, high = c->count;
    while (low < high) { /* the first of its items */
        const size_t middle = low + (high - low) / 2;
        if (c->items[middle].dict < dict)
            low = middle + 1;
        else
            high = middle;
    }
    int result = 0;
    for (size_t i = low; i < c->count && c->items[i].dict == dict && !result; i++) {
        size_t length;
        if (c->visited++ >= c->count) /* a dict that is there twice would be read twice, and so on */
            return pickle_fail(c->machine, "holds the same dict more than once");
        result = enter(c, &c->items[i], i - low, &length);
        if (!result)
            result = collect_value(c, &c->items[i].value, depth);
        c->name[length] = '\0';
    }
    return result;
}

static int collect(struct machine *machine, size_t root_dict, struct pth *pth)
{
    const size_t count = machine->dict_items.count;
    struct collection c = {.machine = machine, .pth = pth, .items = machine->dict_items.items, .count = count};
    if (count)
        qsort(machine->dict_items.items, count, sizeof *c.items, compare_items);
    pth->tensors = calloc(count + 1, sizeof *pth->tensors);
    pth->numbers = calloc(count + 1, sizeof *pth->numbers);
    if (!pth->tensors || !pth->numbers)
        return no_memory(machine);
    const int result = collect_dict(&c, root_dict, 0);
    if (result)
        return result;
    qsort(pth->tensors, pth->count, sizeof *pth->tensors, tensor_compare_names);
    for (size_t i = 1; i < pth->count; i++)
        if (!strcmp(pth->tensors[i - 1].name, pth->tensors[i].name))
            return error_set(machine->error, ERROR_BAD_FILE, "%s: tensor \"%.200s\" is there twice", machine->what,
                             pth->tensors[i].name);
    return 0;
}

/* The archive's one data.pkl, and the folder that it and the tensors are in. */
static int find_pickle(struct machine *machine)
{
    static const char suffix[] = "/data.pkl";
    const size_t suffix_bytes = sizeof suffix - 1;
    const struct zip_entry *pickle = NULL;
    for (size_t i = 0; i < zip_count(machine->zip); i++) {
        const struct zip_entry *entry = zip_at(machine->zip, i);
        if (entry->name_bytes < suffix_bytes || entry->name_bytes > MAX_NAME_BYTES / 2 ||
            memcmp(entry->name + entry->name_bytes - suffix_bytes, suffix, suffix_bytes))
            continue;
        if (pickle)
            return error_set(machine->error, ERROR_BAD_FILE, "%s: more than one data.pkl in it", machine->what);
        pickle = entry;
    }
    if (!pickle)
        return error_set(machine->error, ERROR_BAD_FILE, "%s: a zip file, but not a .pth: no data.pkl in it",
                         machine->what);
    if (pickle->bytes > MAX_PICKLE_BYTES)
        return error_set(machine->error, ERROR_BAD_FILE, "%s: data.pkl has %llu bytes, over the limit of %d",
                         machine->what, (unsigned long long)pickle->bytes, MAX_PICKLE_BYTES);
    if (crc32(0, pickle->data, (uInt)pickle->bytes) != pickle->crc32)
        return error_set(machine->error, ERROR_BAD_FILE, "%s: data.pkl is damaged (its checksum differs)",
                         machine->what);
    machine->folder = pickle->name;
    machine->folder_bytes = pickle->name_bytes - suffix_bytes;
    machine->at = pickle->data;
    machine->end = pickle->data + pickle->bytes;
    return 0;
}

static int check_byte_order(struct machine *machine)
{
    char name[MAX_NAME_BYTES];
    int name_bytes =
        snprintf(name, sizeof name, "%.*s/byteorder", (int)machine->folder_bytes, machine->folder);
    const struct zip_entry *entry = zip_find(machine->zip, name, (size_t)name_bytes);
    if (entry && (entry->bytes != 6 || memcmp(entry->data, "little", 6)))
        return error_set(machine->error, ERROR_BAD_FILE, "%s: its numbers are not little-endian; save it again on a PC",
                         machine->what);
    return 0;
}

bool pth_recognise(const void *data, uint64_t bytes)
{
    return bytes >= 4 && (!memcmp(data, "PK\3\4", 4) || !memcmp(data, "\x80\2\x8a\n", 4));
}

static int read_archive(struct pth *pth, const void *data, uint64_t bytes, const char *what, bool nested,
                        struct error *error)
{
    /* The format before PyTorch 1.6 starts with a pickled magic number. */
    if (bytes >= 2 && !memcmp(data, "\x80\2", 2))
        return error_set(
            error, ERROR_BAD_FILE,
            "%s: a .pth file in the format from before PyTorch 1.6; load it and torch.save() it again with "
            "a newer PyTorch, or use a safetensors file",
            what);
    if (!pth_recognise(data, bytes))
        return error_set(error, ERROR_BAD_FILE, "%s: not a .pth file (it is no zip archive)", what);
    struct zip *zip;
    int result = zip_open(&zip, data, bytes, what, error);
    if (result)
        return result;
    struct machine machine = {.what = what, .zip = zip, .nested = nested, .error = error};
    size_t root_dict = 0;
    result = find_pickle(&machine);
    if (!result)
        result = check_byte_order(&machine);
    if (!result)
        result = pickle_run(&machine, &root_dict);
    if (!result)
        result = collect(&machine, root_dict, pth);
    pickle_free(&machine);
    zip_close(zip);
    return result;
}

static int parse(struct pth **out, const void *data, uint64_t bytes, const char *what, bool nested, struct error *error)
{
    *out = NULL;
    struct error ignored;
    if (!error)
        error = &ignored;
    struct pth *pth = calloc(1, sizeof *pth);
    if (!pth)
        return error_set(error, ERROR_NO_MEMORY, "%s: no memory", what);
    int result = read_archive(pth, data, bytes, what, nested, error);
    if (result) {
        pth_close(pth);
        return result;
    }
    *out = pth;
    return 0;
}

int pth_parse(struct pth **out, const void *data, uint64_t bytes, const char *what, struct error *error)
{
    return parse(out, data, bytes, what, false, error);
}

int pth_open_nested(struct pth **out, const char *path, struct error *error)
{
    *out = NULL;
    struct mapped_file mapping;
    int result = mapped_file_open(&mapping, path, error);
    if (result)
        return result;
    result = parse(out, mapping.data, mapping.bytes, path, true, error);
    if (result) {
        mapped_file_close(&mapping);
        return result;
    }
    (*out)->mapping = mapping;
    return 0;
}

void pth_close(struct pth *pth)
{
    if (!pth)
        return;
    for (size_t i = 0; i < pth->count; i++)
        free((char *)(uintptr_t)pth->tensors[i].name);
    free(pth->tensors);
    free(pth->numbers);
    mapped_file_close(&pth->mapping);
    free(pth);
}

size_t pth_count(const struct pth *pth)
{
    return pth->count;
}

const struct tensor_view *pth_at(const struct pth *pth, size_t index)
{
    return index < pth->count ? &pth->tensors[index] : NULL;
}

const struct tensor_view *pth_find(const struct pth *pth, const char *name)
{
    const struct tensor_view wanted = {.name = name};
    return bsearch(&wanted, pth->tensors, pth->count, sizeof *pth->tensors, tensor_compare_names);
}
