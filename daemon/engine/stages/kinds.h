/* kinds.h: which file of stages/ does which stage. */
#ifndef LANCE_STAGE_KINDS_H
#define LANCE_STAGE_KINDS_H

#include "daemon/engine/stages/stages.h"

/* The kind of a stage; `stage` is in range. */
const struct stage_kind *stage_kind_of(enum lance_stage stage);

#endif
