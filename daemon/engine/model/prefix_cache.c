/* prefix_cache.c: see prefix_cache.h. Blocks are few (a handful per prompt), so a list does. */
#include "daemon/engine/model/prefix_cache.h"

#include <stdlib.h>
#include <string.h>

struct prefix_block {
    struct prefix_cache *cache;
    struct prefix_name name;
    struct prefix_block *parent;
    struct kv_cache *kv;
    uint64_t bytes;
    int users, children;
    bool published;
    uint64_t last_used; /* of the cache's clock */
    struct prefix_block *next;
};

struct prefix_cache {
    const struct decoder *decoder;
    struct prefix_block *first; /* all blocks */
    uint64_t clock;
    uint64_t idle_bytes;
    struct prefix_cache_counts counts;
};

int prefix_cache_open(struct prefix_cache **out, const struct decoder *decoder, uint64_t limit_bytes,
                      struct error *error)
{
    struct prefix_cache *cache = *out = calloc(1, sizeof *cache);
    if (!cache)
        return error_set(error, ERROR_NO_MEMORY, "prefix cache: no memory");
    cache->decoder = decoder;
    cache->counts.limit_bytes = limit_bytes;
    return 0;
}

void prefix_cache_close(struct prefix_cache *cache)
{
    if (!cache)
        return;
    prefix_cache_trim(cache, 0);
    free(cache);
}

static void discard(struct prefix_block *block)
{
    struct prefix_cache *cache = block->cache;
    struct prefix_block **link = &cache->first;
    while (*link != block)
        link = &(*link)->next;
    *link = block->next;
    if (block->parent)
        block->parent->children--;
    cache->counts.blocks--;
    cache->counts.bytes -= block->bytes;
    kv_cache_close(block->kv);
    free(block);
}

struct prefix_block *prefix_cache_find(struct prefix_cache *cache, const struct prefix_name *name)
{
    struct prefix_block *block = name->hex[0] ? cache->first : NULL;
    while (block && !(block->published && !strcmp(block->name.hex, name->hex)))
        block = block->next;
    if (!block)
        return NULL;
    if (block->users++ == 0)
        cache->idle_bytes -= block->bytes;
    cache->counts.hits++;
    return block;
}

int prefix_block_open(struct prefix_block **out, struct prefix_cache *cache, const struct prefix_name *name,
                      struct prefix_block *parent, int rows, struct error *error)
{
    *out = NULL;
    struct prefix_block *block = calloc(1, sizeof *block);
    if (!block)
        return error_set(error, ERROR_NO_MEMORY, "prefix cache: no memory");
    *block = (struct prefix_block){
        .cache = cache, .name = *name, .parent = parent, .bytes = kv_cache_bytes(cache->decoder, rows), .users = 1};
    int code = kv_cache_open(&block->kv, cache->decoder, parent ? parent->kv : NULL, rows, error);
    if (code) {
        free(block);
        return code;
    }
    if (parent)
        parent->children++;
    block->next = cache->first;
    cache->first = block;
    cache->counts.misses++;
    cache->counts.blocks++;
    cache->counts.bytes += block->bytes;
    *out = block;
    return 0;
}

void prefix_block_publish(struct prefix_block *block)
{
    block->published = block->name.hex[0] && block->cache->counts.limit_bytes > 0;
}

void prefix_block_release(struct prefix_block *block)
{
    if (!block || --block->users > 0)
        return;
    struct prefix_cache *cache = block->cache;
    if (!block->published) {
        discard(block);
        return;
    }
    block->last_used = ++cache->clock; /* children are released first, so they are older than their parents */
    cache->idle_bytes += block->bytes;
    prefix_cache_trim(cache, cache->counts.limit_bytes);
}

struct kv_cache *prefix_block_kv(const struct prefix_block *block) { return block->kv; }
uint64_t prefix_cache_idle_bytes(const struct prefix_cache *cache) { return cache->idle_bytes; }

void prefix_cache_trim(struct prefix_cache *cache, uint64_t bytes)
{
    while (cache->idle_bytes > bytes) {
        struct prefix_block *oldest = NULL;
        for (struct prefix_block *block = cache->first; block; block = block->next)
            if (block->users == 0 && block->children == 0 && (!oldest || block->last_used < oldest->last_used))
                oldest = block;
        if (!oldest) /* children in use hold their parents, so this cannot be; it must not hang if it is */
            return;
        cache->idle_bytes -= oldest->bytes;
        cache->counts.evictions++;
        discard(oldest);
    }
}

void prefix_cache_count(const struct prefix_cache *cache, struct prefix_cache_counts *counts)
{
    *counts = cache->counts;
}
