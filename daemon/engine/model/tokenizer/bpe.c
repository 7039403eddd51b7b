/* bpe.c: see bpe.h. The word is a linked list of pieces; a heap holds the pairs that can
 * merge, ordered by rank and then by position. A candidate whose pieces have changed
 * since it was found is dropped when it comes up. */
#include "daemon/engine/model/tokenizer/bpe.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct merge {
    int32_t left, right; /* left -1: free slot */
    int32_t merged, rank;
};

struct bpe_merges {
    struct merge *slots; /* [slot_count], open addressing; slot_count is a power of two */
    size_t slot_count, used;
    int32_t next_rank;
};

struct bpe_piece {
    int32_t token;          /* -1: merged into the piece before it */
    uint32_t before, after; /* neighbours; NONE at the ends */
};

struct bpe_candidate {
    int32_t rank;
    uint32_t position; /* of the left piece */
    int32_t left, right, merged;
};

static const uint32_t NONE = UINT32_MAX;

static size_t slot_of(const struct bpe_merges *merges, int32_t left, int32_t right)
{
    uint64_t key = ((uint64_t)(uint32_t)left << 32) | (uint32_t)right;
    size_t mask = merges->slot_count - 1;
    size_t slot = (size_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & mask;
    while (merges->slots[slot].left >= 0 &&
           (merges->slots[slot].left != left || merges->slots[slot].right != right))
        slot = (slot + 1) & mask;
    return slot;
}

static int resize(struct bpe_merges *merges, size_t slot_count, struct error *error)
{
    struct bpe_merges larger = {.slot_count = slot_count, .used = merges->used, .next_rank = merges->next_rank};
    larger.slots = malloc(slot_count * sizeof *larger.slots);
    if (!larger.slots)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a table of %zu merges", slot_count);
    memset(larger.slots, 0xff, slot_count * sizeof *larger.slots);
    for (size_t i = 0; i < merges->slot_count; i++)
        if (merges->slots[i].left >= 0)
            larger.slots[slot_of(&larger, merges->slots[i].left, merges->slots[i].right)] = merges->slots[i];
    free(merges->slots);
    *merges = larger;
    return 0;
}

int bpe_merges_open(struct bpe_merges **out, struct error *error)
{
    *out = NULL;
    struct bpe_merges *merges = calloc(1, sizeof *merges);
    if (!merges)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a table of merges");
    if (resize(merges, 1024, error)) {
        free(merges);
        return ERROR_NO_MEMORY;
    }
    *out = merges;
    return 0;
}

void bpe_merges_close(struct bpe_merges *merges)
{
    if (!merges)
        return;
    free(merges->slots);
    free(merges);
}

int bpe_merges_add(struct bpe_merges *merges, int32_t left, int32_t right, int32_t merged, struct error *error)
{
    if (2 * (merges->used + 1) > merges->slot_count) {
        int code = resize(merges, 2 * merges->slot_count, error);
        if (code)
            return code;
    }
    struct merge *slot = &merges->slots[slot_of(merges, left, right)];
    if (slot->left < 0)
        merges->used++;
    *slot = (struct merge){left, right, merged, merges->next_rank++};
    return 0;
}

void bpe_work_free(struct bpe_work *work)
{
    free(work->pieces);
    free(work->heap);
    free(work->found);
    *work = (struct bpe_work){0};
}

/* Room for a word of `count` pieces. There are at most count - 1 candidates at the start and as many merges; each
 * merge takes one candidate away and adds two at most, so twice the pieces is room enough. */
static int reserve(struct bpe_work *work, size_t count, struct error *error)
{
    if (count <= work->capacity)
        return 0;
    size_t capacity = count < 64 ? 64 : count;
    bpe_work_free(work);
    work->pieces = calloc(capacity, sizeof *work->pieces);
    work->heap = calloc(2 * capacity, sizeof *work->heap);
    work->found = calloc(2 * capacity, sizeof *work->found);
    if (!work->pieces || !work->heap || !work->found) {
        bpe_work_free(work);
        return error_set(error, ERROR_NO_MEMORY, "no memory to tokenize a word of %zu bytes", count);
    }
    work->capacity = capacity;
    return 0;
}

static bool comes_first(const struct bpe_candidate *a, const struct bpe_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->position < b->position;
}

static void heap_push(struct bpe_candidate *heap, size_t *size, struct bpe_candidate candidate)
{
    size_t i = (*size)++;
    while (i && comes_first(&candidate, &heap[(i - 1) / 2])) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = candidate;
}

static struct bpe_candidate heap_pop(struct bpe_candidate *heap, size_t *size)
{
    struct bpe_candidate top = heap[0], last = heap[--*size];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < *size) {
        if (child + 1 < *size && comes_first(&heap[child + 1], &heap[child]))
            child++;
        if (!comes_first(&heap[child], &last))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

/* Whether the piece at `position` and the one after it can merge. */
static bool find_candidate(const struct bpe_merges *merges, const struct bpe_piece *pieces, uint32_t position,
                           struct bpe_candidate *candidate)
{
    if (position == NONE || pieces[position].after == NONE)
        return false;
    int32_t left = pieces[position].token, right = pieces[pieces[position].after].token;
    const struct merge *merge = &merges->slots[slot_of(merges, left, right)];
    if (merge->left < 0)
        return false;
    *candidate = (struct bpe_candidate){merge->rank, position, left, right, merge->merged};
    return true;
}

static bool is_current(const struct bpe_piece *pieces, const struct bpe_candidate *candidate)
{
    const struct bpe_piece *piece = &pieces[candidate->position];
    return piece->token == candidate->left && piece->after != NONE && pieces[piece->after].token == candidate->right;
}

static void apply(struct bpe_piece *pieces, const struct bpe_candidate *candidate)
{
    struct bpe_piece *left = &pieces[candidate->position], *right = &pieces[left->after];
    left->token = candidate->merged;
    left->after = right->after;
    right->token = -1;
    if (left->after != NONE)
        pieces[left->after].before = candidate->position;
}

int bpe_merge(const struct bpe_merges *merges, struct bpe_work *work, int32_t *tokens, size_t *count,
              struct error *error)
{
    if (*count < 2)
        return 0;
    if (*count >= NONE / 2)
        return error_set(error, ERROR_TOO_LARGE, "a word of %zu bytes is too long to tokenize", *count);
    int code = reserve(work, *count, error);
    if (code)
        return code;
    struct bpe_piece *pieces = work->pieces;
    uint32_t length = (uint32_t)*count;
    for (uint32_t i = 0; i < length; i++)
        pieces[i] = (struct bpe_piece){tokens[i], i ? i - 1 : NONE, i + 1 < length ? i + 1 : NONE};

    struct bpe_candidate *heap = work->heap, *found = work->found, candidate;
    size_t heap_size = 0;
    for (uint32_t i = 0; i < length; i++)
        if (find_candidate(merges, pieces, i, &candidate))
            heap_push(heap, &heap_size, candidate);

    while (heap_size) {
        /* One pass: all places of the lowest rank. What becomes possible by it waits for the next pass, even with a
         * lower rank, because the reference finishes a pass first. */
        int32_t rank = heap[0].rank;
        size_t found_count = 0;
        while (heap_size && heap[0].rank == rank) {
            candidate = heap_pop(heap, &heap_size);
            if (!is_current(pieces, &candidate))
                continue;
            apply(pieces, &candidate);
            uint32_t position = candidate.position;
            found_count += find_candidate(merges, pieces, pieces[position].before, &found[found_count]);
            found_count += find_candidate(merges, pieces, position, &found[found_count]);
        }
        for (size_t i = 0; i < found_count; i++)
            heap_push(heap, &heap_size, found[i]);
    }

    size_t left = 0;
    for (uint32_t i = 0; i < length; i++)
        if (pieces[i].token >= 0)
            tokens[left++] = pieces[i].token;
    *count = left;
    return 0;
}
