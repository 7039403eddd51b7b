/* sampling.h: the answer to `sampling`: which frames of a clip a task looks at, and how large to send them. */
#ifndef LANCE_SAMPLING_H
#define LANCE_SAMPLING_H

#include "base/json.h"

/* Add what PROTOCOL.md says to `answer`. blob_bytes: the most that a source can have.
 * ERROR_BAD_REQUEST names the field. */
int sampling_answer(cJSON *answer, const cJSON *request, uint64_t blob_bytes, struct error *error);

#endif
