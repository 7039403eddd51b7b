/* receipt.h: how a picture was made, as JSON text that goes into its file.
 *
 * The text is ASCII: everything else is written as JSON's \uXXXX. So it fits the tEXt
 * chunk of PNG, which holds Latin-1 only, and any JSON reader gets the prompt back.
 */
#ifndef LANCECTL_RECEIPT_H
#define LANCECTL_RECEIPT_H

#include <cjson/cJSON.h>

/* The receipt of picture `index` (from 0) of a result's envelope: the daemon's receipt, and the picture's own "seed"
 * and "batch_index". malloc'ed; NULL: out of memory. */
char *receipt_of_picture(const cJSON *result, int index);

/* JSON text with everything beyond ASCII escaped. malloc'ed; NULL: out of memory. */
char *receipt_escape(const char *json);

#endif
