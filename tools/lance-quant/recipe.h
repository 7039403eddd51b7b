/* recipe.h: how weights are rounded, and which ingredients of the recipe "best" are used. */
#ifndef LANCE_QUANT_RECIPE_H
#define LANCE_QUANT_RECIPE_H

#include "tools/lance-quant/codes.h"

enum { RECIPE_NAME_BYTES = 256 };

enum recipe_kind { RECIPE_BEST, RECIPE_PUBLISHED };

/* Of the recipe "best"; an ablation leaves some out. */
enum ingredient {
    WITH_SCALING = 1,         /* columns scaled, through the norm in front */
    WITH_DOWN_THROUGH_UP = 2, /* down's columns scaled, through the rows of up */
    WITH_CLIPPING = 4,        /* ranges of groups searched for; for NVFP4, other scales than to 6 and to 4, too */
    WITH_FOUR_OR_SIX = 8,     /* NVFP4: the largest of a group becomes 6 or 4, as costs less */
    WITH_FEEDBACK = 16,       /* what rounding changes is made good by later columns */
    WITH_REFINEMENT = 32,     /* codes and scales changed one by one, while that costs less */
    WITH_ALL = 63
};

/* Which form each layer of a mixed folder has (mix.c). */
struct layer_form {
    char name[RECIPE_NAME_BYTES]; /* without ".weight" */
    struct code_form form;
};
struct mix {
    struct layer_form *layers;
    int count;
    double bits; /* a weight */
};

struct recipe {
    enum recipe_kind kind;
    unsigned ingredients;
    struct code_form form;
    bool slim;             /* NVFP4 without scales_bf16 */
    double budget;         /* bits a weight of a mixed folder; 0: all layers have `form` */
    const struct mix *mix; /* of a mixed folder, else NULL */
};

/* The form that a word names, in its default group; "mixed" begins as AWQ. False: there is none. */
bool recipe_form(const char *text, struct code_form *form, bool *mixed);

/* A group of AWQ: 64 or 128 columns. */
bool recipe_group(const char *text, int *group);

/* "best" or "published". */
bool recipe_kind_of(const char *text, enum recipe_kind *kind);

#endif
