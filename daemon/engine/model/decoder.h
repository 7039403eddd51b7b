/* decoder.h: the mixture-of-transformers decoder: weights, KV caches and one pass over a block of tokens.
 *
 * Every layer has two sets of weights: understanding ("und": text, ViT tokens, vision_start
 * and vision_end) and generation ("gen": latent tokens). A pass runs a block of equally shaped
 * sequences at once; its rows are ordered
 *
 *   [und rows of sequence 0, 1, ...][gen rows of sequence 0, 1, ...]
 *
 * so that each weight matrix does one product over contiguous rows, whatever the number of
 * guidance branches and batch items. Within a block that sees itself in both directions the order of rows means
 * nothing. Source: modeling/lance/qwen2_navit.py; LANCE.md section 4.
 *
 * A kv_cache belongs to its opener. It may continue another one (its parent, which may have one too), which then is
 * read only and must outlive it: branches and batch items share what is common. Used by the thread that owns the
 * kernels.
 */
#ifndef LANCE_DECODER_H
#define LANCE_DECODER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "daemon/engine/model/linear_input.h"
#include "kernels/kernels.h"

struct decoder;

enum { DECODER_MAX_SEQUENCES = 64 }; /* of one pass */

struct decoder_options {
    bool round_tables; /* rotary frequencies rounded to bf16, as the official script has them */
    bool byte_head;    /* what gives logits in 8 bits a weight (byte_matrix.h), unless the file's is quantised */
};

/* Open the weights of a checkpoint, which must outlive the object. */
int decoder_open(struct decoder **out, struct kernels *kernels, const struct checkpoint *checkpoint,
                 const struct decoder_options *options, struct error *error);
void decoder_close(struct decoder *decoder); /* NULL is allowed */
int decoder_hidden_size(const struct decoder *decoder);
int decoder_vocab_size(const struct decoder *decoder);
uint64_t decoder_byte_head_bytes(const struct decoder *decoder); /* of the host's memory; 0: the head is the file's */

/* Keys and values of `capacity` tokens after those of `parent` (or NULL). Errors: ERROR_NO_MEMORY. */
struct kv_cache;
int kv_cache_open(struct kv_cache **out, const struct decoder *decoder, const struct kv_cache *parent, int capacity,
                  struct error *error);
void kv_cache_close(struct kv_cache *cache); /* NULL is allowed */
uint64_t kv_cache_bytes(const struct decoder *decoder, int capacity);

/* The rows that a cache itself holds, to and from host memory: [layers, 2 (keys, values), rows, width], float32, which
 * keeps every bit of an activation. A cache that is restored is empty and has the room. */
size_t kv_cache_row_values(const struct decoder *decoder); /* floats of a row, all layers */
void kv_cache_save(const struct kv_cache *cache, const struct decoder *decoder, float *values);
int kv_cache_restore(struct kv_cache *cache, const struct decoder *decoder, const float *values, int rows,
                     struct error *error);

/* Device memory for passes of at most `rows` rows, of which passes that do not store have at most `query_rows`. */
struct decoder_workspace;
int decoder_workspace_open(struct decoder_workspace **out, const struct decoder *decoder, int rows, int query_rows,
                           struct error *error);
void decoder_workspace_close(struct decoder_workspace *workspace); /* NULL is allowed */
uint64_t decoder_workspace_bytes(const struct decoder *decoder, int rows, int query_rows);

/* The block's hidden state [rows, hidden_size]: the input of a pass, and after it the output of the final norm. */
act *decoder_workspace_x(const struct decoder_workspace *workspace);

/* Rotary tables of rows first_row .. first_row + rows of the workspace, from positions[axis][i]. They stay until
 * replaced. */
int decoder_set_positions(const struct decoder *decoder, struct decoder_workspace *workspace, int first_row,
                          const int32_t *const positions[3], int rows, struct error *error);

/* Host copies of hidden states for tests: after the first layer, and after the final norm; each [rows, hidden_size] or
 * NULL. */
struct decoder_trace {
    float *first_layer;
    float *last;
};

/* From now on show every input of the layers' matrices to `watch`, on the thread that runs the passes; NULL: no longer.
 * Passes are slower meanwhile: nothing is replayed from graphs, and inputs are copied to the host, some hundred rows at
 * a time. ERROR_NO_MEMORY. */
int decoder_watch(struct decoder *decoder, linear_input_watch *watch, void *context, struct error *error);
/* While *cancelled is true operators may leave their work undone: what is there then is not shown. NULL: never. */
void decoder_watch_until(struct decoder *decoder, const atomic_bool *cancelled);

struct decoder_block {
    int sequences;
    int und_rows, gen_rows;          /* of each sequence */
    float time;                      /* of the gen rows, in the schedule; for decoder_watch */
    int gen_position_row;            /* row of the workspace's rotary tables where the gen rows' begin; the und rows' at
                                      * 0 */
    struct kv_cache *const *caches;  /* [sequences] what comes before the block */
    bool causal;                     /* und rows only */
    bool store;                      /* append the block to its cache; one sequence, or several with stored_rows */
    /* NULL, or the und rows of each sequence, in place of und_rows, which is not read: blocks without gen rows that
     * store, in one pass. The rotary tables' rows are those of the sequences, one after the other. A cache's parent
     * may be that of a sequence before it. */
    const int *stored_rows;
    bool only_stores;                /* nobody reads the final hidden state: it is not made where no trace wants it */
    struct graph **graph;            /* for blocks of the same kind that follow (kernels.h, graph_run), or NULL; the
                                      * caller's */
    const struct decoder_trace *trace; /* or NULL */
};

/* Run a block in place on decoder_workspace_x. A block that stores must fit the cache (the caller planned it so). */
void decoder_run(const struct decoder *decoder, struct decoder_workspace *workspace, const struct decoder_block *block);

/* y [count, hidden_size] = embeddings of token ids; ids out of range are ERROR_INTERNAL. */
int decoder_embed(const struct decoder *decoder, const int32_t *ids, int count, act *y, struct error *error);

/* logits [rows, vocab_size] of final-norm hidden states. */
void decoder_logits(const struct decoder *decoder, const act *hidden, int rows, act *logits);

#endif
