/* history.h: what the journal knows of jobs that are over, and of those that are not, for the request "history". */
#ifndef LANCE_HISTORY_H
#define LANCE_HISTORY_H

#include "base/json.h"

struct store;

/* Jobs in one answer, without receipts and with them: what these hold counts too (MESSAGE_MAX_ENVELOPE_VALUES). */
enum { HISTORY_MOST = 1024, HISTORY_MOST_RECEIPTS = 256, HISTORY_MOST_MILESTONES = 8 /* of a job, the last ones */ };

/* Their prompts, messages and receipts together, but for a single job: even escaped twice they are within a message. */
enum { HISTORY_TEXT_BYTES = 512 << 10 };

enum { HISTORY_MOST_PROMPT_BYTES = 16 << 10 }; /* of a prompt's part: SQLite takes patterns of up to 50,000 */

/* What is asked for; what is NULL or negative does not matter. */
struct history_query {
    uint64_t before; /* numbers below it; 0: from the newest on */
    double since;    /* submitted then or later, seconds since 1970 */
    const char *owner; /* whose they are */
    const char *task;
    const char *prompt; /* a part of it, large and small letters of ASCII alike */
    bool failed;        /* those that failed alone */
    bool receipts;      /* with what stands in the receipt, and its milestones */
};

/* The newest first: an array, which the caller frees. *more: there are others with smaller numbers. Any thread. Errors:
 * ERROR_IO, ERROR_NO_MEMORY. */
int history_read(struct store *store, const struct history_query *query, cJSON **jobs, bool *more, struct error *error);

#endif
