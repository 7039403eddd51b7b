/* export_layout.h: what an exported folder's tensors are called, and what its config.json says. */
#ifndef LANCE_QUANT_EXPORT_LAYOUT_H
#define LANCE_QUANT_EXPORT_LAYOUT_H

#include <stdbool.h>

#include "protocol/safetensors.h"

enum { EXPORT_NAME_BYTES = 256 };

enum export_form { EXPORT_MLX, EXPORT_MLX_UND, EXPORT_HF_UND };

struct export_options {
    const char *model, *output;
    enum export_form form;
    int group, bits;      /* of codes: 32, 64 or 128 columns; 4 or 8 */
    bool drops_head_norms;
    int threads;
};

/* The name of an official tensor in the export; false: it is left out. */
bool export_name(const struct export_options *options, const char *official, char name[EXPORT_NAME_BYTES]);

/* Whether a tensor becomes codes. */
bool export_is_quantised(const struct export_options *options, const struct tensor_view *tensor);

/* config.json, malloc'ed, from the release's llm_config.json. ERROR_BAD_FILE, ERROR_IO, ERROR_NO_MEMORY. */
int export_config(const struct export_options *options, char **text, struct error *error);

#endif
