/* metrics.h: the daemon's metrics as text that Prometheus reads (exposition format 0.0.4). */
#ifndef LANCECTL_METRICS_H
#define LANCECTL_METRICS_H

#include "base/json.h"

/* Print the list `metrics` of the daemon's answer to standard output. */
void print_metrics(const cJSON *metrics);

#endif
