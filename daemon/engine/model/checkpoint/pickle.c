/* pickle.c: see pickle.h.
 *
 * Instructions push values on a stack, put them into a memo and take them out
 * again. Values are plain structs; tuples, dicts, storages and tensors are indices into tables of the
 * machine, which all have a limit, so neither recursion nor sharing in the pickle can cost more than
 * its length. Source: the opcode descriptions in Python's pickletools.
 */
#include "daemon/engine/model/checkpoint/pickle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_STACK = 1 << 16,
    MAX_MEMO = 1 << 20,
    MAX_TABLE = 1 << 20, /* tuple items, dict items, storages, tensors: each */
};

enum opcode {
    OP_MARK = '(', OP_STOP = '.', OP_NONE = 'N', OP_BINFLOAT = 'G',
    OP_BININT = 'J', OP_BININT1 = 'K', OP_BININT2 = 'M', OP_LONG1 = 0x8a,
    OP_NEWTRUE = 0x88, OP_NEWFALSE = 0x89, OP_BINUNICODE = 'X', OP_GLOBAL = 'c',
    OP_EMPTY_TUPLE = ')', OP_TUPLE = 't', OP_TUPLE1 = 0x85, OP_TUPLE2 = 0x86, OP_TUPLE3 = 0x87,
    OP_EMPTY_DICT = '}', OP_SETITEM = 's', OP_SETITEMS = 'u',
    OP_EMPTY_LIST = ']', OP_APPEND = 'a', OP_APPENDS = 'e',
    OP_BINPUT = 'q', OP_LONG_BINPUT = 'r', OP_BINGET = 'h', OP_LONG_BINGET = 'j',
    OP_REDUCE = 'R', OP_BUILD = 'b', OP_BINPERSID = 'Q', OP_PROTO = 0x80
};

enum global { GLOBAL_ORDERED_DICT, GLOBAL_REBUILD_TENSOR, GLOBAL_REBUILD_PARAMETER, GLOBAL_STORAGE };

/* The only names a state dict may mention. */
static const struct {
    const char *module, *name;
    enum global global;
    enum dtype dtype; /* of a storage class */
} globals[] = {
    {"collections", "OrderedDict", GLOBAL_ORDERED_DICT, 0},
    {"torch._utils", "_rebuild_tensor_v2", GLOBAL_REBUILD_TENSOR, 0},
    {"torch._utils", "_rebuild_parameter", GLOBAL_REBUILD_PARAMETER, 0},
    {"torch", "FloatStorage", GLOBAL_STORAGE, DTYPE_F32},
    {"torch", "BFloat16Storage", GLOBAL_STORAGE, DTYPE_BF16},
    {"torch", "HalfStorage", GLOBAL_STORAGE, DTYPE_F16},
    {"torch", "DoubleStorage", GLOBAL_STORAGE, DTYPE_F64},
    {"torch", "LongStorage", GLOBAL_STORAGE, DTYPE_I64},
    {"torch", "IntStorage", GLOBAL_STORAGE, DTYPE_I32},
    {"torch", "ShortStorage", GLOBAL_STORAGE, DTYPE_I16},
    {"torch", "CharStorage", GLOBAL_STORAGE, DTYPE_I8},
    {"torch", "ByteStorage", GLOBAL_STORAGE, DTYPE_U8},
    {"torch", "BoolStorage", GLOBAL_STORAGE, DTYPE_BOOL},
};

struct storage {
    enum dtype dtype;
    const uint8_t *data;
    uint64_t elements;
};

/* --- tables and stack -------------------------------------------------------------- */

int pickle_fail(struct machine *machine, const char *reason)
{
    return error_set(machine->error, ERROR_BAD_FILE, "%s: data.pkl %s", machine->what, reason);
}

/* Append `items` zeroed items; NULL with the error set when that is over the limit or there is no memory. */
static void *table_add(struct machine *machine, struct table *table, size_t items, size_t item_bytes, size_t limit)
{
    if (items > limit - table->count) {
        pickle_fail(machine, "is not a plain state dict (it describes too many values)");
        return NULL;
    }
    /* Also for no items: a table that is still empty must not answer with the NULL of a failure. */
    if (table->count + items > table->capacity || !table->items) {
        size_t capacity = table->capacity ? table->capacity : 64;
        while (capacity < table->count + items)
            capacity *= 2;
        void *grown = realloc(table->items, capacity * item_bytes);
        if (!grown) {
            error_set(machine->error, ERROR_NO_MEMORY, "%s: no memory to read data.pkl", machine->what);
            return NULL;
        }
        table->items = grown;
        table->capacity = capacity;
    }
    void *added = (char *)table->items + table->count * item_bytes;
    memset(added, 0, items * item_bytes);
    table->count += items;
    return added;
}

static int push(struct machine *machine, struct value value)
{
    struct value *top = table_add(machine, &machine->stack, 1, sizeof *top, MAX_STACK);
    if (!top)
        return machine->error->code;
    *top = value;
    return 0;
}

static int pop(struct machine *machine, struct value *value)
{
    if (machine->stack.count == 0)
        return pickle_fail(machine, "takes a value from an empty stack");
    *value = ((struct value *)machine->stack.items)[--machine->stack.count];
    return value->kind == VALUE_MARK ? pickle_fail(machine, "uses a mark as a value") : 0;
}

/* The values above the topmost mark; both leave the stack, but stay readable until the next push. */
static int pop_to_mark(struct machine *machine, const struct value **values, size_t *count)
{
    const struct value *stack = machine->stack.items;
    for (size_t i = machine->stack.count; i-- > 0;)
        if (stack[i].kind == VALUE_MARK) {
            *values = stack + i + 1;
            *count = machine->stack.count - i - 1;
            machine->stack.count = i;
            return 0;
        }
    return pickle_fail(machine, "lacks a mark");
}

static const struct value *tuple_item(const struct machine *machine, const struct value *tuple, size_t index)
{
    return (const struct value *)machine->tuple_items.items + tuple->index + index;
}

static bool string_is(const struct value *value, const char *text)
{
    return value->kind == VALUE_STRING && value->count == strlen(text) && !memcmp(value->string, text, value->count);
}

/* --- instruction arguments ----------------------------------------------------------- */

static int take(struct machine *machine, size_t bytes, const uint8_t **data)
{
    if (bytes > (size_t)(machine->end - machine->at))
        return pickle_fail(machine, "ends within an instruction");
    *data = machine->at;
    machine->at += bytes;
    return 0;
}

/* A little-endian unsigned integer of up to 8 bytes. */
static int take_integer(struct machine *machine, size_t bytes, uint64_t *value)
{
    const uint8_t *data = NULL;
    int result = take(machine, bytes, &data);
    *value = 0;
    for (size_t i = bytes; !result && i-- > 0;)
        *value = *value << 8 | data[i];
    return result;
}

static int take_line(struct machine *machine, const char **line, size_t *bytes)
{
    const uint8_t *newline = memchr(machine->at, '\n', (size_t)(machine->end - machine->at));
    if (!newline)
        return pickle_fail(machine, "ends within a name");
    *line = (const char *)machine->at;
    *bytes = (size_t)(newline - machine->at);
    machine->at = newline + 1;
    return 0;
}

/* --- what the instructions do --------------------------------------------------------- */

static bool line_is(const char *line, size_t bytes, const char *text)
{
    return bytes == strlen(text) && !memcmp(line, text, bytes);
}

static int do_global(struct machine *machine)
{
    const char *module = NULL, *name = NULL;
    size_t module_bytes = 0, name_bytes = 0;
    int result = take_line(machine, &module, &module_bytes);
    if (!result)
        result = take_line(machine, &name, &name_bytes);
    if (result)
        return result;
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (line_is(module, module_bytes, globals[i].module) && line_is(name, name_bytes, globals[i].name))
            return push(machine, (struct value){.kind = VALUE_GLOBAL, .index = i});
    char shown[160];
    snprintf(shown, sizeof shown, "%.*s.%.*s", module_bytes > 70 ? 70 : (int)module_bytes, module,
             name_bytes > 70 ? 70 : (int)name_bytes, name);
    for (char *c = shown; *c; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e)
            *c = '?';
    return error_set(machine->error, ERROR_BAD_FILE,
                     "%s: data.pkl wants %s, which is refused: only a plain state dict of tensors is read",
                     machine->what, shown);
}

static int do_tuple(struct machine *machine, const struct value *values, size_t count)
{
    size_t first = machine->tuple_items.count;
    struct value *items = table_add(machine, &machine->tuple_items, count, sizeof *items, MAX_TABLE);
    if (!items)
        return machine->error->code;
    if (count)
        memcpy(items, values, count * sizeof *items);
    return push(machine, (struct value){.kind = VALUE_TUPLE, .count = (uint32_t)count, .index = first});
}

static int do_short_tuple(struct machine *machine, size_t count)
{
    struct value values[3] = {{0}};
    for (size_t i = count; i-- > 0;) {
        int result = pop(machine, &values[i]);
        if (result)
            return result;
    }
    return do_tuple(machine, values, count);
}

static int do_set_items(struct machine *machine, const struct value *pairs, size_t count)
{
    const struct value *dict = (const struct value *)machine->stack.items + machine->stack.count - 1;
    if (machine->stack.count == 0 || dict->kind != VALUE_DICT || count % 2)
        return pickle_fail(machine, "sets items of something that is no dict");
    for (size_t i = 0; i < count; i += 2) {
        struct dict_item *item = table_add(machine, &machine->dict_items, 1, sizeof *item, MAX_TABLE);
        if (!item)
            return machine->error->code;
        *item = (struct dict_item){dict->index, machine->dict_items.count - 1, pairs[i], pairs[i + 1]};
    }
    return 0;
}

static int do_append(struct machine *machine, const struct value *values, size_t count)
{
    const struct value *list = (const struct value *)machine->stack.items + machine->stack.count - 1;
    if (machine->stack.count == 0 || list->kind != VALUE_LIST)
        return pickle_fail(machine, "appends to something that is no list");
    for (size_t i = 0; i < count; i++) {
        const size_t number = machine->dict_items.count;
        const struct value key = {.kind = VALUE_INTEGER, .integer = (int64_t)number};
        struct dict_item *item = table_add(machine, &machine->dict_items, 1, sizeof *item, MAX_TABLE);
        if (!item)
            return machine->error->code;
        *item = (struct dict_item){list->index, number, key, values[i]};
    }
    return 0;
}

static int do_memo_put(struct machine *machine, uint64_t slot)
{
    if (machine->stack.count == 0)
        return pickle_fail(machine, "takes a value from an empty stack");
    if (slot >= MAX_MEMO)
        return pickle_fail(machine, "uses a memo slot over the limit");
    if (slot >= machine->memo.count &&
        !table_add(machine, &machine->memo, (size_t)slot + 1 - machine->memo.count, sizeof(struct value), MAX_MEMO))
        return machine->error->code;
    ((struct value *)machine->memo.items)[slot] =
        ((const struct value *)machine->stack.items)[machine->stack.count - 1];
    return 0;
}

static int do_memo_get(struct machine *machine, uint64_t slot)
{
    const struct value *memo = machine->memo.items;
    if (slot >= machine->memo.count || memo[slot].kind == VALUE_UNSET || memo[slot].kind == VALUE_MARK)
        return pickle_fail(machine, "reads an empty memo slot");
    return push(machine, memo[slot]);
}

/* ("storage", class, key, location, elements): the numbers are the entry FOLDER/data/KEY. */
static int do_persistent_id(struct machine *machine)
{
    struct value id = {0};
    int result = pop(machine, &id);
    if (result)
        return result;
    if (id.kind != VALUE_TUPLE || id.count != 5 || !string_is(tuple_item(machine, &id, 0), "storage"))
        return pickle_fail(machine, "refers to something outside that is no storage");
    const struct value *class = tuple_item(machine, &id, 1), *key = tuple_item(machine, &id, 2);
    const struct value *elements = tuple_item(machine, &id, 4);
    if (class->kind != VALUE_GLOBAL || globals[class->index].global != GLOBAL_STORAGE)
        return pickle_fail(machine, "has a storage of an unknown class");
    if (key->kind != VALUE_STRING || key->count > 64 || elements->kind != VALUE_INTEGER || elements->integer < 0)
        return pickle_fail(machine, "has a storage without a key or a size");

    char name[MAX_NAME_BYTES];
    int name_bytes = snprintf(name, sizeof name, "%.*s/data/%.*s", (int)machine->folder_bytes, machine->folder,
                              (int)key->count, key->string);
    const struct zip_entry *entry = zip_find(machine->zip, name, (size_t)name_bytes);
    if (!entry)
        return error_set(machine->error, ERROR_BAD_FILE, "%s: entry %s is missing", machine->what, name);
    enum dtype dtype = globals[class->index].dtype;
    uint64_t wanted = (uint64_t)elements->integer;
    if (wanted > UINT64_MAX / 8 || entry->bytes != wanted * dtype_bytes(dtype))
        return error_set(machine->error, ERROR_BAD_FILE,
                         "%s: entry %s has %llu bytes, not the %llu numbers of type %s it should", machine->what, name,
                         (unsigned long long)entry->bytes, (unsigned long long)wanted, dtype_name(dtype));
    struct storage *storage = table_add(machine, &machine->storages, 1, sizeof *storage, MAX_TABLE);
    if (!storage)
        return machine->error->code;
    *storage = (struct storage){.dtype = dtype, .data = entry->data, .elements = wanted};
    return push(machine, (struct value){.kind = VALUE_STORAGE, .index = machine->storages.count - 1});
}

/* Fill `view` with shape and data; false when the description is not that of a contiguous tensor inside its storage. */
static bool read_layout(const struct machine *machine, const struct storage *storage, const struct value *offset,
                        const struct value *sizes, const struct value *strides, struct tensor_view *view)
{
    if (offset->kind != VALUE_INTEGER || offset->integer < 0 || sizes->kind != VALUE_TUPLE ||
        strides->kind != VALUE_TUPLE || sizes->count != strides->count || sizes->count > TENSOR_MAX_DIMENSIONS)
        return false;
    view->dtype = storage->dtype;
    view->dimensions = (int)sizes->count;
    uint64_t elements = 1;
    bool contiguous = true;
    for (int d = view->dimensions - 1; d >= 0; d--) {
        const struct value *size = tuple_item(machine, sizes, (size_t)d);
        const struct value *stride = tuple_item(machine, strides, (size_t)d);
        if (size->kind != VALUE_INTEGER || stride->kind != VALUE_INTEGER || size->integer < 0 || stride->integer < 0)
            return false;
        view->shape[d] = (uint64_t)size->integer;
        if (size->integer != 1 && (uint64_t)stride->integer != elements)
            contiguous = false;
        if (size->integer && elements > storage->elements / (uint64_t)size->integer)
            return false;
        elements *= (uint64_t)size->integer;
    }
    if (elements && !contiguous)
        return false;
    if (elements > storage->elements || (uint64_t)offset->integer > storage->elements - elements)
        return false;
    view->data = storage->data + (uint64_t)offset->integer * dtype_bytes(storage->dtype);
    view->bytes = elements * dtype_bytes(storage->dtype);
    return true;
}

/* _rebuild_tensor_v2(storage, offset, sizes, strides, requires_grad, backward_hooks[, metadata]) */
static int do_rebuild_tensor(struct machine *machine, const struct value *arguments)
{
    if (arguments->count < 6 || arguments->count > 7 || tuple_item(machine, arguments, 0)->kind != VALUE_STORAGE)
        return pickle_fail(machine, "rebuilds a tensor from something that is no storage");
    const struct storage *storage =
        (const struct storage *)machine->storages.items + tuple_item(machine, arguments, 0)->index;
    struct tensor_view view = {0};
    if (!read_layout(machine, storage, tuple_item(machine, arguments, 1), tuple_item(machine, arguments, 2),
                     tuple_item(machine, arguments, 3), &view))
        return pickle_fail(machine, "has a tensor that is not contiguous, or not within its storage");
    struct tensor_view *tensor = table_add(machine, &machine->tensors, 1, sizeof *tensor, MAX_TABLE);
    if (!tensor)
        return machine->error->code;
    *tensor = view;
    return push(machine, (struct value){.kind = VALUE_TENSOR, .index = machine->tensors.count - 1});
}

static int do_reduce(struct machine *machine)
{
    struct value arguments = {0}, callee = {0};
    int result = pop(machine, &arguments);
    if (!result)
        result = pop(machine, &callee);
    if (result)
        return result;
    if (callee.kind != VALUE_GLOBAL || arguments.kind != VALUE_TUPLE)
        return pickle_fail(machine, "calls something that is no function");
    switch (globals[callee.index].global) {
    case GLOBAL_ORDERED_DICT:
        if (arguments.count)
            break;
        return push(machine, (struct value){.kind = VALUE_DICT, .index = machine->dicts++});
    case GLOBAL_REBUILD_TENSOR:
        return do_rebuild_tensor(machine, &arguments);
    case GLOBAL_REBUILD_PARAMETER:
        if (arguments.count != 3 || tuple_item(machine, &arguments, 0)->kind != VALUE_TENSOR)
            break;
        return push(machine, *tuple_item(machine, &arguments, 0));
    case GLOBAL_STORAGE:
        break;
    }
    return error_set(machine->error, ERROR_BAD_FILE,
                     "%s: data.pkl calls %s.%s with arguments that a state dict has not", machine->what,
                     globals[callee.index].module, globals[callee.index].name);
}

/* Attributes of the state dict itself (_metadata: version numbers of modules) say nothing about its tensors. */
static int do_build(struct machine *machine)
{
    struct value state = {0}, object = {0};
    int result = pop(machine, &state);
    if (!result)
        result = pop(machine, &object);
    if (result)
        return result;
    if (state.kind != VALUE_DICT || object.kind != VALUE_DICT)
        return pickle_fail(machine, "sets attributes of something that is no dict");
    return push(machine, object);
}

static int refuse_opcode(struct machine *machine, uint8_t opcode)
{
    static const struct {
        uint8_t opcode;
        const char *name;
    } known[] = {
        {'I', "INT"}, {'L', "LONG"}, {0x8b, "LONG4"}, {'S', "STRING"}, {'T', "BINSTRING"}, {'U', "SHORT_BINSTRING"},
        {'B', "BINBYTES"}, {'C', "SHORT_BINBYTES"}, {'V', "UNICODE"}, {0x8c, "SHORT_BINUNICODE"}, {'F', "FLOAT"},
        {']', "EMPTY_LIST"}, {'a', "APPEND"}, {'e', "APPENDS"}, {'l', "LIST"}, {'d', "DICT"}, {0x8f, "EMPTY_SET"},
        {'0', "POP"}, {'1', "POP_MARK"}, {'2', "DUP"}, {'g', "GET"}, {'p', "PUT"}, {0x94, "MEMOIZE"},
        {0x93, "STACK_GLOBAL"}, {'i', "INST"}, {'o', "OBJ"}, {0x81, "NEWOBJ"}, {0x92, "NEWOBJ_EX"}, {'P', "PERSID"},
        {0x82, "EXT1"}, {0x83, "EXT2"}, {0x84, "EXT4"}, {0x95, "FRAME"},
    };
    const char *name = "unknown";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].opcode == opcode)
            name = known[i].name;
    return error_set(machine->error, ERROR_BAD_FILE,
                     "%s: data.pkl has instruction %s (0x%02x), which is refused: only a plain state dict of tensors, "
                     "as torch.save() writes it, is read",
                     machine->what, name, opcode);
}

/* LONG1: a count of bytes, and the number in two's complement. */
static int take_long(struct machine *machine, uint64_t *number)
{
    uint64_t bytes = 0;
    int result = take_integer(machine, 1, &bytes);
    if (!result && bytes > 8)
        return pickle_fail(machine, "has a number over 64 bits");
    if (!result)
        result = take_integer(machine, (size_t)bytes, number);
    if (!result && bytes && bytes < 8 && *number >> (8 * bytes - 1))
        *number |= UINT64_MAX << 8 * bytes; /* extend the sign */
    return result;
}

static int push_text(struct machine *machine)
{
    const uint8_t *data = NULL;
    uint64_t bytes = 0;
    int result = take_integer(machine, 4, &bytes);
    if (!result)
        result = take(machine, (size_t)bytes, &data);
    if (result)
        return result;
    return push(machine, (struct value){.kind = VALUE_STRING, .count = (uint32_t)bytes, .string = (const char *)data});
}

/* Instructions that push a number, true, false or None. */
static int step_scalar(struct machine *machine, uint8_t opcode)
{
    const uint8_t *data = NULL;
    uint64_t number = 0;
    int result = 0;
    switch (opcode) {
    case OP_NONE:
        return push(machine, (struct value){.kind = VALUE_NONE});
    case OP_NEWTRUE:
    case OP_NEWFALSE:
        return push(machine, (struct value){.kind = VALUE_BOOL, .integer = opcode == OP_NEWTRUE});
    case OP_BINFLOAT:
        result = take(machine, 8, &data);
        return result ? result : push(machine, (struct value){.kind = VALUE_FLOAT});
    case OP_BININT:
        result = take_integer(machine, 4, &number);
        number = (uint64_t)(int64_t)(int32_t)(uint32_t)number;
        break;
    case OP_BININT1:
        result = take_integer(machine, 1, &number);
        break;
    case OP_BININT2:
        result = take_integer(machine, 2, &number);
        break;
    default:
        result = take_long(machine, &number);
        break;
    }
    return result ? result : push(machine, (struct value){.kind = VALUE_INTEGER, .integer = (int64_t)number});
}

/* Instructions that make tuples, dicts and lists, and fill them. */
static int step_container(struct machine *machine, uint8_t opcode)
{
    const struct value *values = NULL;
    struct value pair[2] = {{0}};
    size_t count = 0;
    int result = 0;
    switch (opcode) {
    case OP_EMPTY_TUPLE:
        return do_tuple(machine, NULL, 0);
    case OP_TUPLE1:
    case OP_TUPLE2:
    case OP_TUPLE3:
        return do_short_tuple(machine, (size_t)(opcode - OP_TUPLE1) + 1);
    case OP_TUPLE:
        result = pop_to_mark(machine, &values, &count);
        return result ? result : do_tuple(machine, values, count);
    case OP_EMPTY_DICT:
        return push(machine, (struct value){.kind = VALUE_DICT, .index = machine->dicts++});
    case OP_EMPTY_LIST:
        return push(machine, (struct value){.kind = VALUE_LIST, .index = machine->dicts++});
    case OP_SETITEM:
        result = pop(machine, &pair[1]);
        if (!result)
            result = pop(machine, &pair[0]);
        return result ? result : do_set_items(machine, pair, 2);
    case OP_SETITEMS:
        result = pop_to_mark(machine, &values, &count);
        return result ? result : do_set_items(machine, values, count);
    case OP_APPEND:
        result = pop(machine, &pair[0]);
        return result ? result : do_append(machine, pair, 1);
    default:
        result = pop_to_mark(machine, &values, &count);
        return result ? result : do_append(machine, values, count);
    }
}

/* Everything else: marks, texts, the memo, names and calls. */
static int step_other(struct machine *machine, uint8_t opcode)
{
    uint64_t number = 0;
    int result = 0;
    switch (opcode) {
    case OP_PROTO:
        result = take_integer(machine, 1, &number);
        if (!result && number != 2)
            return error_set(machine->error, ERROR_BAD_FILE,
                             "%s: data.pkl is in pickle protocol %d; torch.save() writes protocol 2", machine->what,
                             (int)number);
        return result;
    case OP_MARK:
        return push(machine, (struct value){.kind = VALUE_MARK});
    case OP_BINUNICODE:
        return push_text(machine);
    case OP_GLOBAL:
        return do_global(machine);
    case OP_BINPUT:
    case OP_LONG_BINPUT:
        result = take_integer(machine, opcode == OP_BINPUT ? 1 : 4, &number);
        return result ? result : do_memo_put(machine, number);
    case OP_BINGET:
    case OP_LONG_BINGET:
        result = take_integer(machine, opcode == OP_BINGET ? 1 : 4, &number);
        return result ? result : do_memo_get(machine, number);
    case OP_BINPERSID:
        return do_persistent_id(machine);
    case OP_REDUCE:
        return do_reduce(machine);
    case OP_BUILD:
        return do_build(machine);
    default:
        return refuse_opcode(machine, opcode);
    }
}

static int step(struct machine *machine, uint8_t opcode)
{
    switch (opcode) {
    case OP_NONE: case OP_NEWTRUE: case OP_NEWFALSE: case OP_BINFLOAT:
    case OP_BININT: case OP_BININT1: case OP_BININT2: case OP_LONG1:
        return step_scalar(machine, opcode);
    case OP_EMPTY_LIST: case OP_APPEND: case OP_APPENDS:
        return machine->nested ? step_container(machine, opcode) : refuse_opcode(machine, opcode);
    case OP_EMPTY_TUPLE: case OP_TUPLE: case OP_TUPLE1: case OP_TUPLE2: case OP_TUPLE3:
    case OP_EMPTY_DICT: case OP_SETITEM: case OP_SETITEMS:
        return step_container(machine, opcode);
    default:
        return step_other(machine, opcode);
    }
}

/* Run the pickle to its end; what is left is the state dict. */
int pickle_run(struct machine *machine, size_t *root_dict)
{
    for (;;) {
        const uint8_t *opcode = NULL;
        int result = take(machine, 1, &opcode);
        if (result)
            return result;
        if (*opcode == OP_STOP)
            break;
        result = step(machine, *opcode);
        if (result)
            return result;
    }
    struct value root = {0};
    int result = pop(machine, &root);
    if (result)
        return result;
    if (root.kind != VALUE_DICT || machine->stack.count)
        return pickle_fail(machine, "does not hold a state dict");
    *root_dict = root.index;
    return 0;
}

void pickle_free(struct machine *machine)
{
    free(machine->stack.items);
    free(machine->memo.items);
    free(machine->tuple_items.items);
    free(machine->dict_items.items);
    free(machine->storages.items);
    free(machine->tensors.items);
}
