/* meta.c: see meta.h. Source: the end of awq_apply.py and nvfp4_apply.py of lance-quant. */
#include "tools/lance-quant/meta.h"

#include <stdio.h>

#include "base/json.h"
#include "kernels/formats/group.h"
#include "tools/lance-quant/part_work.h"

struct counts {
    int scaled, plain;
};

static int bits_of(const struct code_form *form)
{
    return form->format == WEIGHT_INT8 ? 8 : 4;
}

static const char *scheme(const struct code_form *form, const struct part *part, bool scaled)
{
    if (form->format == WEIGHT_NVFP4)
        return scaled ? "nvfp4_awq" : "nvfp4_minmax";
    if (form->format == WEIGHT_INT8)
        return "sym_int8_grouped";
    if (scaled)
        return "asym_int4_grouped_awq";
    return part->norm ? "asym_int4_grouped_no_awq" : "asym_int4_grouped_minmax";
}

static void add_matrix(cJSON *list, const struct part *part, int index, const struct code_form *form, bool scaled)
{
    const struct matrix *matrix = &part->matrices[index];
    cJSON *entry = json_add_object(list, matrix->tensor->name), *shape = json_add_array(entry, "shape");
    json_append_number(shape, matrix->out_features);
    json_append_number(shape, matrix->in_features);
    if (form->format != WEIGHT_NVFP4)
        json_add_number(entry, "n_bit", bits_of(form));
    json_add_number(entry, form->format != WEIGHT_NVFP4 ? "group_size" : "block_size", form->group);
    json_add_text(entry, "scheme", scheme(form, part, scaled));
}

static int add_parts(cJSON *list, const struct source *source, int layers, const struct statistics *statistics,
                     const struct recipe *recipe, struct counts *counts, struct error *error)
{
    for (int number = 0; number < layers * PARTS_PER_LAYER; number++) {
        struct part part;
        bool scaled;
        int code = layout_part(source, number / PARTS_PER_LAYER, number % PARTS_PER_LAYER, &part, error);
        if (code == 0)
            code = part_is_scaled(&part, statistics, &scaled, error);
        if (code != 0)
            return code;
        for (int l = 0; l < part.count; l++) {
            const struct code_form form = layout_recipe_form(recipe, &part.matrices[l]);
            if (form.format == WEIGHT_BF16)
                continue;
            add_matrix(list, &part, l, &form, scaled);
            ++*(scaled ? &counts->scaled : &counts->plain);
        }
    }
    return 0;
}

int meta_text(char **out, const struct source *source, int layers, const struct statistics *statistics,
              const struct recipe *recipe, struct error *error)
{
    const struct code_form *form = &recipe->form;
    const bool mixed = recipe->mix != NULL;
    const bool nvfp4 = form->format == WEIGHT_NVFP4;
    struct counts counts = {0};
    cJSON *meta = json_object(), *per_weight = json_object();
    const int status = add_parts(per_weight, source, layers, statistics, recipe, &counts, error);
    if (mixed)
        json_add_number(meta, "bits_per_weight", recipe->mix->bits);
    else if (!nvfp4)
        json_add_number(meta, "n_bit", bits_of(form));
    json_add_number(meta, nvfp4 ? "block_size" : "group_size", form->group);
    json_add_text(meta, "scheme",
                  mixed                         ? "mixed"
                  : nvfp4                       ? "nvfp4_e2m1_block_fp8scale"
                  : form->format == WEIGHT_INT8 ? "sym_int8_grouped"
                                                : "asym_int4_grouped_awq");
    json_add_number(meta, "awq_linears", counts.scaled);
    json_add_number(meta, "plain_linears", counts.plain);
    cJSON *tasks = json_add_array(meta, "tasks_calibrated");
    for (int i = 0; i < statistics_tasks(statistics); i++)
        json_append_text(tasks, statistics_task(statistics, i));
    if (nvfp4) {
        cJSON *levels = json_add_array(meta, "fp4_lut_pos");
        for (unsigned code = 0; code < FP4_CODES / 2; code++)
            json_append_number(levels, (double)fp4_to_float(code));
    }
    json_add(meta, "per_weight", per_weight);
    *out = status == 0 ? json_print(meta) : NULL;
    cJSON_Delete(meta);
    if (status == 0 && !*out)
        return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for the meta file");
    return status;
}
