/* tap.c: see tap.h. */
#include "daemon/engine/tap.h"

#include "daemon/engine/lance_model.h"
#include "daemon/engine/model/decoder.h"

int lance_tap_open(struct lance_model *model, linear_input_watch *watch, void *context, struct error *error)
{
    return decoder_watch(model->decoder, watch, context, error);
}
