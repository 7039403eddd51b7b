/* recipe.c: see recipe.h. */
#include "tools/lance-quant/recipe.h"

#include <string.h>

#include "tools/lance-quant/command.h"

enum { DEFAULT_GROUP = 128 };

bool recipe_form(const char *text, struct code_form *form, bool *mixed)
{
    static const struct {
        const char *name;
        struct code_form form;
    } known[] = {{"awq-int4", {WEIGHT_AWQ_INT4, DEFAULT_GROUP}}, {"nvfp4", {WEIGHT_NVFP4, NVFP4_GROUP}},
                 {"int8", {WEIGHT_INT8, INT8_GROUP}},       {"mixed", {WEIGHT_AWQ_INT4, DEFAULT_GROUP}}};
    *mixed = strcmp(text, "mixed") == 0;
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        if (strcmp(text, known[k].name) == 0) {
            *form = known[k].form;
            return true;
        }
    return false;
}

bool recipe_group(const char *text, int *group)
{
    return command_number(text, 64, 128, group) && (*group == 64 || *group == 128);
}

bool recipe_kind_of(const char *text, enum recipe_kind *kind)
{
    *kind = strcmp(text, "published") == 0 ? RECIPE_PUBLISHED : RECIPE_BEST;
    return *kind == RECIPE_PUBLISHED || strcmp(text, "best") == 0;
}
