/* vocabulary.c: see vocabulary.h. An array by id and an open-addressing hash table of ids. */
#include "daemon/engine/model/tokenizer/vocabulary.h"

#include <stdlib.h>
#include <string.h>

struct token {
    char *bytes; /* NULL: the id is not in use */
    size_t length;
};

struct vocabulary {
    struct token *tokens; /* [capacity], by id */
    size_t capacity;
    int count;
    int32_t *slots; /* [slot_count] ids, -1 for free; slot_count is a power of two */
    size_t slot_count;
};

static uint32_t hash_of(const char *bytes, size_t length)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * 16777619u;
    return hash;
}

/* The slot that holds these bytes, or the free one where they belong. */
static size_t slot_of(const struct vocabulary *vocabulary, const char *bytes, size_t length)
{
    size_t mask = vocabulary->slot_count - 1;
    size_t slot = hash_of(bytes, length) & mask;
    while (vocabulary->slots[slot] >= 0) {
        const struct token *token = &vocabulary->tokens[vocabulary->slots[slot]];
        if (token->length == length && !memcmp(token->bytes, bytes, length))
            break;
        slot = (slot + 1) & mask;
    }
    return slot;
}

static int resize_slots(struct vocabulary *vocabulary, size_t slot_count, struct error *error)
{
    int32_t *slots = malloc(slot_count * sizeof *slots);
    if (!slots)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a vocabulary of %zu slots", slot_count);
    memset(slots, 0xff, slot_count * sizeof *slots);
    free(vocabulary->slots);
    vocabulary->slots = slots;
    vocabulary->slot_count = slot_count;
    for (size_t id = 0; id < vocabulary->capacity; id++)
        if (vocabulary->tokens[id].bytes)
            slots[slot_of(vocabulary, vocabulary->tokens[id].bytes, vocabulary->tokens[id].length)] = (int32_t)id;
    return 0;
}

static int reach_id(struct vocabulary *vocabulary, size_t id, struct error *error)
{
    if (id < vocabulary->capacity)
        return 0;
    size_t capacity = vocabulary->capacity ? vocabulary->capacity : 1024;
    while (capacity <= id)
        capacity *= 2;
    struct token *tokens = realloc(vocabulary->tokens, capacity * sizeof *tokens);
    if (!tokens)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a vocabulary of %zu tokens", capacity);
    memset(tokens + vocabulary->capacity, 0, (capacity - vocabulary->capacity) * sizeof *tokens);
    vocabulary->tokens = tokens;
    vocabulary->capacity = capacity;
    return 0;
}

int vocabulary_open(struct vocabulary **out, struct error *error)
{
    *out = NULL;
    struct vocabulary *vocabulary = calloc(1, sizeof *vocabulary);
    if (!vocabulary)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a vocabulary");
    if (resize_slots(vocabulary, 1024, error)) {
        vocabulary_close(vocabulary);
        return ERROR_NO_MEMORY;
    }
    *out = vocabulary;
    return 0;
}

void vocabulary_close(struct vocabulary *vocabulary)
{
    if (!vocabulary)
        return;
    for (size_t id = 0; id < vocabulary->capacity; id++)
        free(vocabulary->tokens[id].bytes);
    free(vocabulary->tokens);
    free(vocabulary->slots);
    free(vocabulary);
}

int vocabulary_add(struct vocabulary *vocabulary, int64_t id, const char *bytes, size_t length, struct error *error)
{
    if (id < 0 || id >= VOCABULARY_MAX_IDS)
        return error_set(error, ERROR_BAD_FILE, "token id %lld is not between 0 and %d", (long long)id,
                         VOCABULARY_MAX_IDS - 1);
    int code = reach_id(vocabulary, (size_t)id, error);
    if (!code && 2 * ((size_t)vocabulary->count + 1) > vocabulary->slot_count)
        code = resize_slots(vocabulary, 2 * vocabulary->slot_count, error);
    if (code)
        return code;

    size_t slot = slot_of(vocabulary, bytes, length);
    if (vocabulary->slots[slot] == id)
        return 0;
    if (vocabulary->slots[slot] >= 0)
        return error_set(error, ERROR_BAD_FILE, "ids %d and %lld stand for the same token", vocabulary->slots[slot],
                         (long long)id);
    struct token *token = &vocabulary->tokens[id];
    if (token->bytes)
        return error_set(error, ERROR_BAD_FILE, "id %lld is given to two tokens", (long long)id);
    token->bytes = malloc(length + 1);
    if (!token->bytes)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a token of %zu bytes", length);
    memcpy(token->bytes, bytes, length);
    token->bytes[length] = '\0';
    token->length = length;
    vocabulary->slots[slot] = (int32_t)id;
    vocabulary->count++;
    return 0;
}

int vocabulary_count(const struct vocabulary *vocabulary)
{
    return vocabulary->count;
}

int32_t vocabulary_id_limit(const struct vocabulary *vocabulary)
{
    return (int32_t)vocabulary->capacity;
}

int32_t vocabulary_find(const struct vocabulary *vocabulary, const char *bytes, size_t length)
{
    return vocabulary->slots[slot_of(vocabulary, bytes, length)];
}

const char *vocabulary_bytes(const struct vocabulary *vocabulary, int32_t id, size_t *length)
{
    if (id < 0 || (size_t)id >= vocabulary->capacity || !vocabulary->tokens[id].bytes)
        return NULL;
    *length = vocabulary->tokens[id].length;
    return vocabulary->tokens[id].bytes;
}
