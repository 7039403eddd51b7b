/* bpe.h: byte pair encoding: merge the tokens of a word by rank.
 *
 * A table of merges (left, right -> merged, with a rank) is filled once and then only
 * read. bpe_merge works in a buffer of its caller, so one table serves many threads.
 */
#ifndef LANCE_BPE_H
#define LANCE_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct bpe_merges;

int bpe_merges_open(struct bpe_merges **out, struct error *error);
void bpe_merges_close(struct bpe_merges *merges); /* NULL is allowed */

/* Add a merge; ranks count from 0 in the order of adding. A pair that is added again takes the later rank. */
int bpe_merges_add(struct bpe_merges *merges, int32_t left, int32_t right, int32_t merged, struct error *error);

/* Memory that bpe_merge needs and keeps from word to word. Start with {0}; free it with bpe_work_free. */
struct bpe_work {
    struct bpe_piece *pieces;
    struct bpe_candidate *heap, *found;
    size_t capacity; /* pieces; heap and found hold twice as many */
};
void bpe_work_free(struct bpe_work *work);

/* Merge the `count` tokens of a word in place, always every occurrence of the pair of lowest rank from left to right
 * before the next pair, in O(count log count). *count becomes the number left. */
int bpe_merge(const struct bpe_merges *merges, struct bpe_work *work, int32_t *tokens, size_t *count,
              struct error *error);

#endif
