/* statistics.h: how large the inputs of each linear layer are: what calibration leaves for quantising.
 *
 * A file of them is safetensors: for each layer "NAME.sum_abs" f32 [in], the sum of |x| over tokens, and "NAME.tokens"
 * i64, how many; and the metadata "lance_statistics": "1" and "tasks", a JSON list of names. act_stats.pt of
 * lance-quant (awq_calibrate_single.py, awq_merge_stats.py) is read as well, without running anything in it.
 */
#ifndef LANCE_QUANT_STATISTICS_H
#define LANCE_QUANT_STATISTICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/sha256.h"

struct statistics;

/* Errors: ERROR_BAD_FILE, also for values that are no numbers or below 0; ERROR_NO_MEMORY, ERROR_IO. */
int statistics_open(struct statistics **out, const char *path, struct error *error);
void statistics_close(struct statistics *statistics); /* NULL is allowed */

/* Add what `other` counted; its tasks are named, too. ERROR_BAD_FILE when a layer has another width there: the
 * statistics are of different models. */
int statistics_add(struct statistics *statistics, const struct statistics *other, struct error *error);

/* The file appears whole or not at all. */
int statistics_write(const struct statistics *statistics, const char *path, struct error *error);

int statistics_layers(const struct statistics *statistics);
int statistics_layers_seen(const struct statistics *statistics); /* with at least one token */
int statistics_tasks(const struct statistics *statistics);
const char *statistics_task(const struct statistics *statistics, int index);

/* The mean of |x| of each input of a layer such as "language_model.model.layers.0.mlp.up_proj", into `mean`
 * [in_features]. *seen is false, and `mean` not filled, where the layer is not known or saw no token. ERROR_BAD_FILE
 * when its width is another: the statistics are of another model. */
int statistics_mean_abs(const struct statistics *statistics, const char *layer, int in_features, float *mean,
                        bool *seen, struct error *error);

/* Add what is known of a layer to a digest. */
void statistics_digest(const struct statistics *statistics, const char *layer, struct sha256 *digest);

#endif
