/* layout.h: which layers are quantised, and what tensors a published file has in place of theirs.
 *
 * A norm and the linear layers behind it are one part, whose scales are searched for together; a layer without a norm
 * of its own in front is a part by itself. Everything else is copied, in bf16. Source: awq_apply.py and nvfp4_apply.py
 * of lance-quant.
 */
#ifndef LANCE_QUANT_LAYOUT_H
#define LANCE_QUANT_LAYOUT_H

#include "tools/lance-quant/matrix.h"
#include "tools/lance-quant/output.h"
#include "tools/lance-quant/recipe.h"
#include "tools/lance-quant/source.h"

enum { PARTS_PER_LAYER = 8, LAYOUT_MOST_LAYERS = 1024, LAYOUT_NAME_BYTES = RECIPE_NAME_BYTES, PART_MOST_LINEARS = 3 };

/* One part of one decoder layer, as far as the source has it. */
struct part {
    const struct tensor_view *norm; /* its weight, [in_features]; NULL: none in front */
    int count;                      /* of linear layers; 0: the source lacks the part */
    struct matrix matrices[PART_MOST_LINEARS];
    char names[PART_MOST_LINEARS][LAYOUT_NAME_BYTES]; /* without ".weight" */
};

/* How many decoder layers the source has, at most LAYOUT_MOST_LAYERS: tensors of later ones are copied. ERROR_BAD_FILE:
 * none. */
int layout_layers(const struct source *source, int *layers, struct error *error);

/* Part `index` of a decoder layer. ERROR_BAD_FILE when its tensors do not fit each other. */
int layout_part(const struct source *source, int layer, int index, struct part *part, struct error *error);

/* The part whose input is the product of gate's and up's outputs, and so of the rows of the last matrix of part
 * `index`, which may be divided by what its columns are multiplied by; -1: there is none. */
int layout_part_behind(int index);
bool layout_is_behind_rows(int index); /* whether a part is such a one */

/* The group of this matrix in a form: the form's own unless that does not divide the columns. */
struct code_form layout_form(const struct code_form *form, const struct matrix *matrix);

/* The form of this matrix by a recipe, its group likewise; and the names of the recipe's files. */
struct code_form layout_recipe_form(const struct recipe *recipe, const struct matrix *matrix);
const char *layout_weights_file(const struct recipe *recipe);
const char *layout_meta_file(const struct recipe *recipe);

/* The tensors to write, in the published order: larger elements first, then by name. The caller gives them to
 * layout_free. */
int layout_tensors(const struct source *source, const struct recipe *recipe, struct tensor_view **out, size_t *count,
                   struct error *error);
void layout_free(struct tensor_view *tensors, size_t count);

/* Whether a tensor of the source is written as it is (in bf16) and belongs to no part: not a quantised weight, nor a
 * norm in front of one. */
bool layout_is_copied(const struct tensor_view *tensor);

/* Whether these are floating-point numbers, which are written as bf16. */
bool layout_is_floating(enum dtype dtype);

#endif
