/* measures.h: how long jobs waited, ran and took for their steps since the daemon's start, as histograms.
 *
 * A `measures` belongs to the job table, whose lock guards it; all zero is one without a measurement.
 */
#ifndef LANCE_JOB_MEASURES_H
#define LANCE_JOB_MEASURES_H

#include <cjson/cJSON.h>
#include <stdint.h>

enum measure {
    MEASURE_QUEUE, /* from a job's submission to its start, by task */
    MEASURE_JOB,   /* from its start to its end, by task */
    MEASURE_STEP,  /* of one step, by stage */
    MEASURE_COUNT
};

enum { MEASURE_MOST_LABELS = 16, MEASURE_LABEL_BYTES = 32, MEASURE_BUCKETS = 16 };

struct measures {
    struct histogram {
        char label[MEASURE_LABEL_BYTES];
        uint64_t counts[MEASURE_BUCKETS + 1]; /* how many lay within each bound and not within the one before */
        double sum_seconds;
    } of[MEASURE_COUNT][MEASURE_MOST_LABELS];
};

/* Note a measurement under a label, a task's or a stage's name; there are fewer than MEASURE_MOST_LABELS of either. */
void measures_note(struct measures *measures, enum measure measure, const char *label, double seconds);

/* "queue_seconds", "job_seconds", "step_seconds": for each label {"count", "sum", "buckets": [[bound, how many lie
 * within it], ...]}. NULL or incomplete (json_is_complete) without memory. */
cJSON *measures_json(const struct measures *measures);

#endif
