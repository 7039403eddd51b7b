/* meta.h: awq_meta.json and nvfp4_meta.json, as the published files have them. */
#ifndef LANCE_QUANT_META_H
#define LANCE_QUANT_META_H

#include "daemon/engine/tap.h"
#include "tools/lance-quant/layout.h"

/* The text, malloc'ed. Errors: ERROR_NO_MEMORY, ERROR_BAD_FILE. */
int meta_text(char **out, const struct source *source, int layers, const struct statistics *statistics,
              const struct recipe *recipe, struct error *error);

#endif
