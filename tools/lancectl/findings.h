/* findings.h: what lancectl doctor has found, a line each, and what its exit status is of all of them. */
#ifndef LANCECTL_FINDINGS_H
#define LANCECTL_FINDINGS_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "tools/lancectl/exit_codes.h"

enum finding { FINDING_OK, FINDING_NOTE /* not as it might be, but nothing is wrong */, FINDING_PROBLEM };

struct findings {
    cJSON *list;              /* for --json: {"about", "state", "text"} each */
    bool json;                /* nothing is printed before the end */
    enum exit_code exit_code; /* EXIT_OK while there is no problem */
};

void findings_begin(struct findings *findings, bool json);

/* One more, printed at once. `exit_code` is that of a problem; of several the gravest counts: no daemon, refused, a
 * model that lacks something, anything else. What is printed may come from a daemon (say.h). */
void findings_add(struct findings *findings, enum finding state, enum exit_code exit_code, const char *about,
                  const char *format, ...) __attribute__((format(printf, 5, 6)));

/* The last line; or with --json all of them, with `details`, which belongs to the output from now on. Returns the
 * exit status. */
enum exit_code findings_end(struct findings *findings, cJSON *details);

#endif
