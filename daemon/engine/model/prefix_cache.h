/* prefix_cache.h: keys and values of prompts' splits, kept across jobs and found again by content.
 *
 * A block holds the KV cache of one split (the system prompt, a picture, a caption) behind a chain
 * of earlier blocks, its parents. Its name is a hash of everything it was computed from: the
 * parent's name, token ids, positions, and the picture (prefix.c makes it), so two prompts
 * share exactly the blocks they have in common: the same picture with a new question finds
 * all but the question, the same prompt with a new seed finds everything.
 *
 * A block is held by its users (the prefixes of running jobs). One that nobody uses is idle: it stays,
 * least recently used ones first to go, while idle blocks take no more than the limit and admission does not need their
 * room. A parent never goes before its children. One model, one thread (the worker's).
 */
#ifndef LANCE_PREFIX_CACHE_H
#define LANCE_PREFIX_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/engine/model/decoder.h"

struct prefix_cache;
struct prefix_block;

/* A SHA-256 in hex; "" names nothing: a block without a name is never found again. */
struct prefix_name { char hex[65]; };

/* A cache for a model's decoder, which must outlive it. `limit_bytes` bounds what is kept for later; 0: nothing is. */
int prefix_cache_open(struct prefix_cache **out, const struct decoder *decoder, uint64_t limit_bytes,
                      struct error *error);
void prefix_cache_close(struct prefix_cache *cache); /* no block may have users; NULL is allowed */

/* The finished block of that name with one more user, the caller; NULL when there is none. */
struct prefix_block *prefix_cache_find(struct prefix_cache *cache, const struct prefix_name *name);

/* A block of `rows` tokens to be computed by the caller, its only user, behind `parent` (or NULL), which the caller
 * uses too. Nobody else finds it before prefix_block_publish. Errors: ERROR_NO_MEMORY. */
int prefix_block_open(struct prefix_block **out, struct prefix_cache *cache, const struct prefix_name *name,
                      struct prefix_block *parent, int rows, struct error *error);
/* It is computed: others may find it. */
void prefix_block_publish(struct prefix_block *block);
/* One user less; release children before their parents. NULL is allowed. */
void prefix_block_release(struct prefix_block *block);

struct kv_cache *prefix_block_kv(const struct prefix_block *block);

/* Device bytes of idle blocks; and have idle blocks go, the least recently used first, until
 * they take `bytes` or less. */
uint64_t prefix_cache_idle_bytes(const struct prefix_cache *cache);
void prefix_cache_trim(struct prefix_cache *cache, uint64_t bytes);

struct prefix_cache_counts {
    uint64_t hits, misses; /* blocks found, and blocks that had to be computed */
    uint64_t evictions;
    uint64_t blocks, bytes; /* there now, idle or in use */
    uint64_t limit_bytes;
};
void prefix_cache_count(const struct prefix_cache *cache, struct prefix_cache_counts *counts);

#endif
