/* linear_input.c: see linear_input.h. */
#include "daemon/engine/model/linear_input.h"

#include <stdio.h>

enum { MOST_MATRICES = 3 };

/* The two halves of a name that the layer's number and, at the end or in the middle, the expert's suffix stand
 * between. */
static const struct {
    const char *module, *matrices[MOST_MATRICES];
    bool suffix_at_end;
} places[LINEAR_PLACES] = {
    [PLACE_QKV] = {"self_attn", {"q_proj", "k_proj", "v_proj"}, true},
    [PLACE_O] = {"self_attn", {"o_proj"}, true},
    [PLACE_GATE_UP] = {"mlp", {"gate_proj", "up_proj"}, false},
    [PLACE_DOWN] = {"mlp", {"down_proj"}, false},
};

bool linear_input_name(char name[LINEAR_NAME_BYTES], enum linear_place place, int layer, bool generation, int index)
{
    const char *matrix = index < MOST_MATRICES ? places[place].matrices[index] : NULL;
    const char *suffix = generation ? "_moe_gen" : "";
    const bool at_end = places[place].suffix_at_end;
    if (!matrix)
        return false;
    snprintf(name, LINEAR_NAME_BYTES, "language_model.model.layers.%d.%s%s.%s%s", layer, places[place].module,
             at_end ? "" : suffix, matrix, at_end ? suffix : "");
    return true;
}
