/* layout.c: see layout.h. */
#include "tools/lance-quant/layout.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char layers_prefix[] = "language_model.model.layers.", weight_suffix[] = ".weight";

static const struct {
    const char *norm, *linears[PART_MOST_LINEARS];
} parts[PARTS_PER_LAYER] = {
    {"input_layernorm", {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}},
    {"input_layernorm_moe_gen", {"self_attn.q_proj_moe_gen", "self_attn.k_proj_moe_gen", "self_attn.v_proj_moe_gen"}},
    {"post_attention_layernorm", {"mlp.gate_proj", "mlp.up_proj", NULL}},
    {"post_attention_layernorm_moe_gen", {"mlp_moe_gen.gate_proj", "mlp_moe_gen.up_proj", NULL}},
    {NULL, {"self_attn.o_proj", NULL, NULL}},
    {NULL, {"self_attn.o_proj_moe_gen", NULL, NULL}},
    {NULL, {"mlp.down_proj", NULL, NULL}},
    {NULL, {"mlp_moe_gen.down_proj", NULL, NULL}},
};

/* The number in "language_model.model.layers.N.REST", and REST; -1 for another name. */
static int layer_of(const char *name, const char **rest)
{
    const size_t prefix = sizeof layers_prefix - 1;
    if (strncmp(name, layers_prefix, prefix) != 0 || name[prefix] < '0' || name[prefix] > '9' ||
        (name[prefix] == '0' && name[prefix + 1] != '.'))
        return -1;
    char *end;
    const unsigned long layer = strtoul(name + prefix, &end, 10);
    if (*end != '.' || layer >= LAYOUT_MOST_LAYERS)
        return -1;
    *rest = end + 1;
    return (int)layer;
}

int layout_layers(const struct source *source, int *layers, struct error *error)
{
    *layers = 0;
    for (size_t i = 0; i < source_count(source); i++) {
        const char *rest;
        const int layer = layer_of(source_at(source, i)->name, &rest);
        if (layer >= *layers)
            *layers = layer + 1;
    }
    return *layers > 0 ? 0
                       : error_set(error, ERROR_BAD_FILE,
                                   "the checkpoint has no tensors called %s0...: it is no Lance model in "
                                   "the official layout",
                                   layers_prefix);
}

int layout_part(const struct source *source, int layer, int index, struct part *part, struct error *error)
{
    char name[LAYOUT_NAME_BYTES + sizeof weight_suffix];
    *part = (struct part){0};
    if (parts[index].norm) {
        snprintf(name, sizeof name, "%s%d.%s%s", layers_prefix, layer, parts[index].norm, weight_suffix);
        part->norm = source_find(source, name);
    }
    for (int l = 0; l < PART_MOST_LINEARS && parts[index].linears[l]; l++) {
        char *linear = part->names[part->count];
        snprintf(linear, LAYOUT_NAME_BYTES, "%s%d.%s", layers_prefix, layer, parts[index].linears[l]);
        snprintf(name, sizeof name, "%s%s", linear, weight_suffix);
        const struct tensor_view *weight = source_find(source, name);
        if (!weight)
            continue;
        struct matrix *matrix = &part->matrices[part->count];
        const int code = matrix_open(matrix, weight, error);
        if (code != 0)
            return code;
        if (matrix->in_features % 2 != 0 || matrix->in_features != part->matrices[0].in_features)
            return error_set(error, ERROR_BAD_FILE, "%s has %d inputs, which is odd or not what its neighbours have",
                             name, matrix->in_features);
        part->count++;
    }
    if (parts[index].norm && !part->norm && part->count > 0)
        return error_set(error, ERROR_BAD_FILE, "%s%d has no %s in front of %s", layers_prefix, layer,
                         parts[index].norm, part->names[0]);
    if (part->norm && part->count > 0 &&
        (tensor_elements(part->norm) != (uint64_t)part->matrices[0].in_features || part->norm->dimensions != 1))
        return error_set(error, ERROR_BAD_FILE, "%s does not fit the layers behind it", part->norm->name);
    return 0;
}

enum { PART_GATE_UP = 2, PART_DOWN = 6, EXPERTS = 2 }; /* the first expert's place among the parts */

int layout_part_behind(int index)
{
    return index >= PART_GATE_UP && index < PART_GATE_UP + EXPERTS ? index - PART_GATE_UP + PART_DOWN : -1;
}

bool layout_is_behind_rows(int index)
{
    return index >= PART_DOWN && index < PART_DOWN + EXPERTS;
}

struct code_form layout_form(const struct code_form *form, const struct matrix *matrix)
{
    const int group = form->format == WEIGHT_BF16 ? matrix->in_features : form->group;
    return (struct code_form){form->format, codes_group(matrix->in_features, group)};
}

struct code_form layout_recipe_form(const struct recipe *recipe, const struct matrix *matrix)
{
    struct code_form form = recipe->form;
    for (int i = 0; recipe->mix && i < recipe->mix->count; i++) {
        const struct layer_form *layer = &recipe->mix->layers[i];
        const size_t length = strlen(layer->name);
        if (strncmp(matrix->tensor->name, layer->name, length) == 0 &&
            strcmp(matrix->tensor->name + length, weight_suffix) == 0)
            form = layer->form;
    }
    return layout_form(&form, matrix);
}

const char *layout_weights_file(const struct recipe *recipe)
{
    return recipe->budget > 0 ? "mixed_state_dict.safetensors" : codes_weights_file(recipe->form.format);
}

const char *layout_meta_file(const struct recipe *recipe)
{
    return recipe->budget > 0 ? "mixed_meta.json" : codes_meta_file(recipe->form.format);
}

/* Whether NAME is PREFIX N. STEM ".weight" for one of the stems of the parts. */
static bool is_of_a_part(const char *name, bool norms)
{
    const char *rest = NULL;
    if (layer_of(name, &rest) < 0)
        return false;
    const size_t length = strlen(rest), suffix = sizeof weight_suffix - 1;
    if (length <= suffix || strcmp(rest + length - suffix, weight_suffix) != 0)
        return false;
    for (int p = 0; p < PARTS_PER_LAYER; p++) {
        const char *const *stems = norms ? &parts[p].norm : parts[p].linears;
        for (int s = 0; s < (norms ? 1 : PART_MOST_LINEARS) && stems[s]; s++)
            if (strlen(stems[s]) == length - suffix && strncmp(stems[s], rest, length - suffix) == 0)
                return true;
    }
    return false;
}

bool layout_is_copied(const struct tensor_view *tensor)
{
    return !is_of_a_part(tensor->name, true) && !is_of_a_part(tensor->name, false);
}

bool layout_is_floating(enum dtype dtype)
{
    return dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16 || dtype == DTYPE_F64;
}

/* --- The list of tensors ------------------------------------------------------------------------------- */

struct list {
    struct tensor_view *tensors;
    size_t count;
};

static int add(struct list *list, const char *name, const char *part, enum dtype dtype, int dimensions,
               const uint64_t *shape, struct error *error)
{
    struct tensor_view *tensor = &list->tensors[list->count];
    char *copy = malloc(strlen(name) + strlen(part) + 2);
    if (!copy)
        return error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for the list of tensors");
    sprintf(copy, *part ? "%s.%s" : "%s%s", name, part);
    *tensor = (struct tensor_view){.name = copy, .dtype = dtype, .dimensions = dimensions};
    memcpy(tensor->shape, shape, sizeof *shape * (size_t)dimensions);
    tensor->bytes = tensor_elements(tensor) * dtype_bytes(dtype);
    list->count++;
    return 0;
}

static int add_linear(struct list *list, const struct tensor_view *weight, const struct recipe *recipe,
                      struct error *error)
{
    struct matrix matrix;
    char name[LAYOUT_NAME_BYTES];
    int code = matrix_open(&matrix, weight, error);
    if (code != 0)
        return code;
    snprintf(name, sizeof name, "%.*s", (int)(strlen(weight->name) - (sizeof weight_suffix - 1)), weight->name);
    const struct code_form form = layout_recipe_form(recipe, &matrix);
    const int group = form.group;
    const uint64_t rows = (uint64_t)matrix.out_features, columns = (uint64_t)matrix.in_features;
    const enum weight_format format = form.format;
    if (format == WEIGHT_BF16)
        return add(list, weight->name, "", DTYPE_BF16, 2, weight->shape, error);
    const uint64_t codes[] = {rows, weight_bytes(format, columns)}, groups[] = {rows, columns / (uint64_t)group},
                   one[] = {1};
    const bool nvfp4 = format == WEIGHT_NVFP4, bytes = format == WEIGHT_INT8;
    code = add(list, name, PART_CODES, bytes ? DTYPE_I8 : DTYPE_U8, 2, codes, error);
    if (code == 0 && !recipe->slim)
        code = add(list, name, nvfp4 ? PART_SCALES_BF16 : PART_SCALES, DTYPE_BF16, 2, groups, error);
    if (code == 0 && !bytes)
        code = add(list, name, nvfp4 ? PART_SCALES_FP8 : PART_ZEROS, DTYPE_U8, 2, groups, error);
    if (code == 0 && nvfp4 && recipe->kind == RECIPE_BEST)
        code = add(list, name, PART_TENSOR_SCALE, DTYPE_F32, 1, one, error);
    return code;
}

static int in_published_order(const void *a, const void *b)
{
    const struct tensor_view *left = a, *right = b;
    const size_t left_bytes = dtype_bytes(left->dtype), right_bytes = dtype_bytes(right->dtype);
    if (left_bytes != right_bytes)
        return left_bytes > right_bytes ? -1 : 1;
    return strcmp(left->name, right->name);
}

int layout_tensors(const struct source *source, const struct recipe *recipe, struct tensor_view **out, size_t *count,
                   struct error *error)
{
    struct list list = {calloc(4 * source_count(source) + 1, sizeof *list.tensors), 0};
    int code =
        !list.tensors ? error_set(error, ERROR_NO_MEMORY, "lance-quant: no memory for the list of tensors") : 0;
    for (size_t i = 0; i < source_count(source) && code == 0; i++) {
        const struct tensor_view *tensor = source_at(source, i);
        if (is_of_a_part(tensor->name, false))
            code = add_linear(&list, tensor, recipe, error);
        else
            code = add(&list, tensor->name, "", layout_is_floating(tensor->dtype) ? DTYPE_BF16 : tensor->dtype,
                       tensor->dimensions, tensor->shape, error);
    }
    if (code != 0) {
        layout_free(list.tensors, list.count);
        return code;
    }
    qsort(list.tensors, list.count, sizeof *list.tensors, in_published_order);
    *out = list.tensors;
    *count = list.count;
    return 0;
}

void layout_free(struct tensor_view *tensors, size_t count)
{
    for (size_t i = 0; tensors && i < count; i++)
        free((char *)(uintptr_t)tensors[i].name);
    free(tensors);
}
