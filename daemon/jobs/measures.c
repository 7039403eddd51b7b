/* measures.c: see measures.h. */
#include "daemon/jobs/measures.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"

/* From a step of a small model to a film. */
static const double bounds_seconds[MEASURE_BUCKETS] = {0.01, 0.03, 0.1, 0.3, 1,   2,    5,    10,
                                                       30,   60,   120, 300, 900, 3600, 14400, 86400};

void measures_note(struct measures *measures, enum measure measure, const char *label, double seconds)
{
    for (int i = 0; i < MEASURE_MOST_LABELS; i++) {
        struct histogram *histogram = &measures->of[measure][i];
        if (histogram->label[0] == '\0')
            snprintf(histogram->label, sizeof histogram->label, "%s", label);
        if (strcmp(histogram->label, label) != 0)
            continue;
        int bucket = 0;
        while (bucket < MEASURE_BUCKETS && seconds > bounds_seconds[bucket])
            bucket++;
        histogram->counts[bucket]++;
        histogram->sum_seconds += seconds;
        return;
    }
}

static cJSON *histogram_json(const struct histogram *histogram)
{
    cJSON *json = json_object(), *buckets = json_array();
    uint64_t count = 0;
    for (int i = 0; i < MEASURE_BUCKETS; i++) {
        count += histogram->counts[i];
        json_append(buckets, json_from_numbers((const double[]){bounds_seconds[i], (double)count}, 2));
    }
    json_add_number(json, "count", (double)(count + histogram->counts[MEASURE_BUCKETS]));
    json_add_number(json, "sum", histogram->sum_seconds);
    json_add(json, "buckets", buckets);
    return json;
}

cJSON *measures_json(const struct measures *measures)
{
    static const char *const names[MEASURE_COUNT] = {"queue_seconds", "job_seconds", "step_seconds"};
    cJSON *json = json_object();
    for (int measure = 0; measure < MEASURE_COUNT; measure++) {
        cJSON *labels = json_add_object(json, names[measure]);
        for (int i = 0; i < MEASURE_MOST_LABELS && measures->of[measure][i].label[0] != '\0'; i++)
            json_add(labels, measures->of[measure][i].label, histogram_json(&measures->of[measure][i]));
    }
    return json;
}
