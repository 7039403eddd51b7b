/* lance_source.h: pictures and videos as the tensor "source" of a request. */
#ifndef LANCECTL_GRAPH_LANCE_SOURCE_H
#define LANCECTL_GRAPH_LANCE_SOURCE_H

#include "tools/lancectl/graph/work.h"

/* Add `count` pictures from `first` on, as they are. */
int lance_source_pictures(struct ask *ask, const struct value *image, int first, int count, struct error *error);

/* Add the frames that the model looks at of a VIDEO, or of an IMAGE at `fps`; only the first of them when
 * `only_first`. Sets the parameter fps otherwise, and work->source_seconds. Errors: ERROR_BAD_FILE, ERROR_TOO_LARGE,
 * ERROR_NO_MEMORY. */
int lance_source_clip(struct work *work, struct ask *ask, const struct value *video, double fps, bool only_first,
                      struct error *error);

#endif
