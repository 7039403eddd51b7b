/* result_cache.c: see result_cache.h. Entries hang in lists by the first digits of their digest, and in one by use. */
#include "daemon/result_cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "daemon/blob.h"

enum { LISTS = 4096, DIGITS = 3 /* of a digest, which tell its list */ };

struct entry {
    char digest[SHA256_HEX_BYTES];
    struct blob *result;
    struct entry *next;           /* in its list */
    struct entry *older, *younger; /* by use */
};

struct result_cache {
    struct kept_results face;
    pthread_mutex_t lock; /* guards the rest */
    struct kept_counts counts;
    struct entry *oldest, *youngest;
    struct entry *lists[LISTS];
};

/* --- With the lock held --------------------------------------------------------------- */

static struct entry **list_of(struct result_cache *cache, const char *digest)
{
    char digits[DIGITS + 1] = "";
    strncat(digits, digest, DIGITS);
    return &cache->lists[strtoul(digits, NULL, 16) % LISTS];
}

/* Where the pointer to the entry of that digest is, or would be. */
static struct entry **find_link(struct result_cache *cache, const char *digest)
{
    struct entry **link = list_of(cache, digest);
    while (*link && strcmp((*link)->digest, digest) != 0)
        link = &(*link)->next;
    return link;
}

static void take_out(struct result_cache *cache, struct entry *entry)
{
    *(entry->older ? &entry->older->younger : &cache->oldest) = entry->younger;
    *(entry->younger ? &entry->younger->older : &cache->youngest) = entry->older;
}

static void put_in_as_youngest(struct result_cache *cache, struct entry *entry)
{
    entry->older = cache->youngest;
    entry->younger = NULL;
    *(entry->older ? &entry->older->younger : &cache->oldest) = entry;
    cache->youngest = entry;
}

/* What it takes, itself included: answers to questions are small and many. */
static uint64_t cost(const struct blob *result)
{
    return sizeof(struct entry) + sizeof *result + result->bytes;
}

static void let_go(struct result_cache *cache, struct entry *entry)
{
    *find_link(cache, entry->digest) = entry->next;
    take_out(cache, entry);
    cache->counts.results--;
    cache->counts.bytes -= cost(entry->result);
    blob_close(entry->result);
    free(entry);
}

/* --- The face ---------------------------------------------------------------------------- */

static struct blob *find(void *context, const char *digest)
{
    struct result_cache *cache = context;
    struct blob *result = NULL;
    pthread_mutex_lock(&cache->lock);
    struct entry *entry = *find_link(cache, digest);
    if (entry) {
        take_out(cache, entry);
        put_in_as_youngest(cache, entry);
        cache->counts.answered++;
        result = blob_share(entry->result);
    }
    pthread_mutex_unlock(&cache->lock);
    return result;
}

/* Without memory for it there is one result less. */
static void keep(void *context, const char *digest, struct blob *result)
{
    struct result_cache *cache = context;
    struct entry *entry = cost(result) <= cache->counts.limit_bytes ? calloc(1, sizeof *entry) : NULL;
    if (!entry)
        return;
    strncat(entry->digest, digest, sizeof entry->digest - 1);
    entry->result = blob_share(result);
    pthread_mutex_lock(&cache->lock);
    struct entry *former = *find_link(cache, digest);
    if (former)
        let_go(cache, former);
    while (cache->oldest && cache->counts.bytes + cost(result) > cache->counts.limit_bytes)
        let_go(cache, cache->oldest);
    *find_link(cache, digest) = entry;
    put_in_as_youngest(cache, entry);
    cache->counts.results++;
    cache->counts.bytes += cost(result);
    pthread_mutex_unlock(&cache->lock);
}

static void count(void *context, struct kept_counts *counts)
{
    struct result_cache *cache = context;
    pthread_mutex_lock(&cache->lock);
    *counts = cache->counts;
    pthread_mutex_unlock(&cache->lock);
}

/* --- Life ---------------------------------------------------------------------------------- */

int result_cache_open(struct result_cache **out, uint64_t limit_bytes, struct error *error)
{
    struct result_cache *cache = *out = calloc(1, sizeof *cache);
    if (!cache)
        return error_set(error, ERROR_NO_MEMORY, "kept results: out of memory");
    cache->face = (struct kept_results){cache, find, keep, count};
    cache->counts.limit_bytes = limit_bytes;
    pthread_mutex_init(&cache->lock, NULL);
    return 0;
}

void result_cache_close(struct result_cache *cache)
{
    if (!cache)
        return;
    while (cache->oldest)
        let_go(cache, cache->oldest);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

const struct kept_results *result_cache_results(const struct result_cache *cache)
{
    return cache ? &cache->face : NULL;
}
