/* attention_bf16.h: attention's tasks where products run in bf16. */
#ifndef LANCE_CPU_ATTENTION_BF16_H
#define LANCE_CPU_ATTENTION_BF16_H

#include "kernels/cpu/attention_rows.h"

/* Scratch of a task with `rows` rows, in floats; the task, with a struct attention_work. */
size_t attention_bf16_floats(const struct attention *a, int rows);
void attention_bf16_task(void *context, int index, int thread);

#endif
