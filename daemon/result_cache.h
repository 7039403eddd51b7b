/* result_cache.h: results kept in memory for the same request, where no journal keeps them (kept_results.h). They may
 * take so many bytes together; what was used longest ago goes first. Any thread.
 */
#ifndef LANCE_RESULT_CACHE_H
#define LANCE_RESULT_CACHE_H

#include "base/error.h"
#include "daemon/kept_results.h"

struct result_cache;

/* ERROR_NO_MEMORY. */
int result_cache_open(struct result_cache **out, uint64_t limit_bytes, struct error *error);
void result_cache_close(struct result_cache *cache); /* NULL is allowed */

/* Its face; lives as long as the cache. NULL gives NULL. */
const struct kept_results *result_cache_results(const struct result_cache *cache);

#endif
