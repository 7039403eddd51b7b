/* statistics.h: how large the inputs of each linear layer are: what calibration leaves for quantising.
 *
 * A file of them is safetensors, with the metadata "lance_statistics": "2" and "tasks", a JSON list of names. For each
 * layer, in parts: one, or for a layer of latent tokens three, by the third of the schedule (clean, middle, noise):
 *
 *   NAME.tokens   i64 [parts]            how many
 *   NAME.sum_abs  f32 [parts, inputs]    the sum of |x| over tokens
 *   NAME.sum_squares, NAME.largest       the same of x^2, and the largest |x|; not in every file
 *   NAME.moments  f32 [blocks, 128, 128] the sum of x x^T within 128 inputs, its upper half; with the first of the
 *                                        layers that share an input; not in every file
 *
 * A single part may be without its axis (version "1" has no other). act_stats.pt of lance-quant
 * (awq_calibrate_single.py, awq_merge_stats.py), which has the first two, is read as well, without running anything in
 * it.
 */
#ifndef LANCE_STATISTICS_H
#define LANCE_STATISTICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/sha256.h"

struct statistics;

enum { STATISTICS_BLOCK = 128 /* inputs whose products are counted */, STATISTICS_MOST_PARTS = 3 };

/* What was counted of a layer; the arrays belong to the statistics. */
struct layer_sums {
    char *name;
    int width, parts;
    uint64_t tokens[STATISTICS_MOST_PARTS];
    float *sum_abs;                /* [parts, width] */
    float *sum_squares, *largest;  /* [parts, width]; both there or both NULL */
    float *moments;                /* [blocks, STATISTICS_BLOCK, STATISTICS_BLOCK] or NULL */
};

/* Empty ones, to be counted into. */
int statistics_new(struct statistics **out, struct error *error);

/* A layer's sums, to be added to: those that are there, or zeros. They stay where they are. ERROR_BAD_FILE when they
 * are there in another shape; ERROR_NO_MEMORY. */
int statistics_layer(struct statistics *statistics, const char *name, int width, int parts, bool moments,
                     struct layer_sums **out, struct error *error);

/* Note that the statistics are of this task, too. */
int statistics_add_task(struct statistics *statistics, const char *name, struct error *error);

/* Blocks of a width. */
static inline int statistics_blocks(int width)
{
    return (width + STATISTICS_BLOCK - 1) / STATISTICS_BLOCK;
}

/* Errors: ERROR_BAD_FILE, also for values that are no numbers or below 0; ERROR_NO_MEMORY, ERROR_IO. */
int statistics_open(struct statistics **out, const char *path, struct error *error);
void statistics_close(struct statistics *statistics); /* NULL is allowed */

/* Add what `other` counted; its tasks are named, too. What only one of them has of a layer is left
 * out, and `other` may lose its parts. ERROR_BAD_FILE when a layer has another width there: the statistics are of
 * different models. */
int statistics_add(struct statistics *statistics, struct statistics *other, struct error *error);

/* The file appears whole or not at all. `note`, or NULL, is a text that statistics_note gives back. */
int statistics_write(const struct statistics *statistics, const char *path, const char *note, struct error *error);
const char *statistics_note(const struct statistics *statistics); /* of the file that was opened; NULL: none */

int statistics_layers(const struct statistics *statistics);
int statistics_layers_seen(const struct statistics *statistics); /* with at least one token */
bool statistics_saw(const struct statistics *statistics, const char *layer); /* it, with at least one token */
bool statistics_have_moments(const struct statistics *statistics);   /* of at least one layer */
int statistics_tasks(const struct statistics *statistics);
const char *statistics_task(const struct statistics *statistics, int index);

/* The mean of |x| of each input of a layer such as "language_model.model.layers.0.mlp.up_proj", into `mean`
 * [in_features]. *seen is false, and `mean` not filled, where the layer is not known or saw no token. ERROR_BAD_FILE
 * when its width is another: the statistics are of another model. */
int statistics_mean_abs(const struct statistics *statistics, const char *layer, int in_features, float *mean,
                        bool *seen, struct error *error);

/* The mean of x^2 likewise; not seen, too, where nobody counted it. */
int statistics_mean_squares(const struct statistics *statistics, const char *layer, int in_features, float *mean,
                            bool *seen, struct error *error);

/* The mean of x x^T within blocks, both halves, into `mean` [blocks, STATISTICS_BLOCK, STATISTICS_BLOCK], likewise. */
int statistics_mean_moments(const struct statistics *statistics, const char *layer, int in_features, float *mean,
                            bool *seen, struct error *error);

/* Add what is known of a layer to a digest. */
void statistics_digest(const struct statistics *statistics, const char *layer, struct sha256 *digest);

#endif
