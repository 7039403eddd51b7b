/* data_file.h: the data that lancectl reads when it runs: tables of protocol/, such as nodes.json. */
#ifndef LANCECTL_DATA_FILE_H
#define LANCECTL_DATA_FILE_H

#include <cjson/cJSON.h>

#include "base/error.h"

/* Read a table: from the folder $LANCED_DATA; from ../share/lanced of the program's own folder, where it is
 * installed; from beside the program; or from protocol/ of the source tree that it was built in. *out is to be given
 * to cJSON_Delete. Errors: ERROR_BAD_FILE, ERROR_NO_MEMORY. */
int data_file_read(cJSON **out, const char *name, struct error *error);

#endif
