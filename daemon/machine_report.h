/* machine_report.h: what a machine has for lanced, as fields of an answer: what computes, why the card does not,
 * memory. Plain functions; any thread. */
#ifndef LANCE_MACHINE_REPORT_H
#define LANCE_MACHINE_REPORT_H

#include <cjson/cJSON.h>
#include <stdio.h>

#include "daemon/device.h"
#include "daemon/options.h"

/* PROTOCOL.md's `machine` of `models`, looked at now, which the caller gives to cJSON_Delete. NULL: out of memory. */
cJSON *machine_report_json(const struct device *device);

/* lanced --check without --state: the version, the backend, `machine`, and what lies on disk of each model that the
 * command line offers, as one JSON object to `out`; no model is read. Errors: those of device_open, ERROR_NO_MEMORY. */
int machine_report_print(const struct options *options, FILE *out, struct error *error);

#endif
