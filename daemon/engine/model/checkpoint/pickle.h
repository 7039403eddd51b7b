/* pickle.h: the machine that runs the few instructions of a state dict's pickle, for pth.c alone.
 *
 * A pickle is a program. This machine knows only what plain data of dicts, numbers, texts and contiguous
 * tensors needs, and refuses everything else by its name; nothing is called or imported. One thread; pth.c
 * owns it and frees its tables.
 */
#ifndef LANCE_PICKLE_H
#define LANCE_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "daemon/engine/model/checkpoint/zip.h"
#include "protocol/safetensors.h"

enum { MAX_NAME_BYTES = 1024 };

enum kind {
    VALUE_UNSET, /* an empty memo slot */
    VALUE_MARK, VALUE_NONE, VALUE_BOOL, VALUE_FLOAT, VALUE_INTEGER, VALUE_STRING, VALUE_GLOBAL,
    VALUE_TUPLE, VALUE_DICT, VALUE_LIST, VALUE_STORAGE, VALUE_TENSOR
};

struct value {
    enum kind kind;
    uint32_t count;    /* STRING: bytes; TUPLE: items */
    union {
        int64_t integer;    /* INTEGER, BOOL */
        const char *string; /* STRING: inside the pickle, not terminated */
        size_t index;       /* GLOBAL, TUPLE (first item), DICT and LIST (its number), STORAGE,
                             * TENSOR: into their tables */
    };
};

/* Of a dict, or of a list, whose items have numbers as keys. */
struct dict_item {
    size_t dict, number; /* `number` counts all items */
    struct value key, value;
};

/* A growing array of at most `limit` items of one size. */
struct table {
    void *items;
    size_t count, capacity;
};

/* `what`, `zip`, `folder`, `at`, `end`, `nested` and `error` are the caller's to fill in. */
struct machine {
    const char *what;
    const struct zip *zip;
    const char *folder; /* what precedes "/data.pkl" in entry names */
    size_t folder_bytes;
    const uint8_t *at, *end; /* the rest of the pickle */
    struct table stack;      /* struct value */
    struct table memo;       /* struct value */
    struct table tuple_items; /* struct value */
    struct table dict_items; /* struct dict_item */
    struct table storages;   /* struct storage */
    struct table tensors;    /* struct tensor_view, without names */
    size_t dicts;            /* and lists */
    bool nested;             /* lists, and what is not a tensor, are read as well */
    struct error *error;
};

/* Run the pickle to its end; what is left is the dict of that number. ERROR_BAD_FILE, ERROR_NO_MEMORY. */
int pickle_run(struct machine *machine, size_t *root_dict);

void pickle_free(struct machine *machine);

/* "WHAT: data.pkl REASON"; returns ERROR_BAD_FILE. */
int pickle_fail(struct machine *machine, const char *reason);

#endif
