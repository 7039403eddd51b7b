/* tensors.h: all tensors of a checkpoint's weight files under their official names, read by role.
 *
 * A table is filled while a checkpoint is opened and only read afterwards, by any thread. Its tensors borrow the files
 * that they are from; names that are not the file's own belong to the table.
 */
#ifndef LANCE_CHECKPOINT_TENSORS_H
#define LANCE_CHECKPOINT_TENSORS_H

#include "daemon/engine/model/checkpoint/checkpoint.h"

enum { TENSOR_MAX_NAME_BYTES = 1100 }; /* the readers allow 1024; room for a prefix or suffix */

struct tensor_table {
    struct tensor_view *tensors; /* sorted by name */
    size_t count;
    char **owned_names;          /* those that differ from the file's */
    size_t owned_count;
};

/* The tensors of one file, whatever reads it. */
struct tensor_source {
    const void *file;
    const struct tensor_view *(*at)(const void *file, size_t index);
    size_t count;
};

/* Add a file's tensors under `prefix` (without one, MLX names become official ones). Names that the table has already
 * are left out (the ViT's, when the main file has one, too), but may not come twice among the main files. *used:
 * something was added. Errors: ERROR_BAD_FILE, ERROR_NO_MEMORY. */
int tensor_table_add(struct tensor_table *table, const struct tensor_source *file, const char *prefix, bool *used,
                     struct error *error);
void tensor_table_free(struct tensor_table *table);

/* A tensor by name, or NULL; that of `name`.`part`. */
const struct tensor_view *tensor_table_find(const struct tensor_table *table, const char *name);
const struct tensor_view *tensor_table_part(const struct tensor_table *table, const char *name, const char *part);

/* What checkpoint_linear, checkpoint_conv and checkpoint_vector say. */
int tensor_table_linear(const struct tensor_table *table, const char *name, int out_features, int in_features,
                        struct linear_source *source, struct error *error);
int tensor_table_conv(const struct tensor_table *table, const char *name, struct conv_source *source,
                      struct error *error);
int tensor_table_vector(const struct tensor_table *table, const char *name, int n, float *out, struct error *error);

#endif
