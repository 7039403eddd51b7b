/* system_prompt.h: what the official scripts put in front of every request of a task. */
#ifndef LANCE_SYSTEM_PROMPT_H
#define LANCE_SYSTEM_PROMPT_H

#include <stdbool.h>

#include "daemon/engine/task.h"

/* The official system prompt of a task. Tasks that answer have one for questions and one for plain captions; `has_text`
 * chooses. Static memory. */
const char *system_prompt(enum lance_task task, bool has_text);

#endif
