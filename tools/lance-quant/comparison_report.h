/* comparison_report.h: the tables of report.md, from what report.json has.
 */
#ifndef LANCE_QUANT_COMPARISON_REPORT_H
#define LANCE_QUANT_COMPARISON_REPORT_H

#include "base/json.h"

/* The text, malloc'ed; NULL: no memory. `reports` is an array of what was seen of each model: "model" (a name), "tasks"
 * (scores.h), "layers" (layer_losses.h), and "text", where one was given, of "tokens", "perplexity" and
 * "reference_perplexity". */
char *comparison_report_text(const char *reference, const cJSON *reports);

#endif
