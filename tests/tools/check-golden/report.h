/* report.h: one line per case and stage, and the counts at the end. */
#ifndef CHECK_GOLDEN_REPORT_H
#define CHECK_GOLDEN_REPORT_H

#include <stdbool.h>

/* Counters of the whole run. */
struct report {
    const char *case_name; /* of the lines to come */
    int passed, failed;
    bool quiet;            /* print failures only */
};

/* A measured error against its bound. */
void report_error(struct report *report, const char *stage, double error, double bound);

/* Something that is equal or not; `detail` says how much or where. */
void report_equal(struct report *report, const char *stage, bool equal, const char *detail, ...)
    __attribute__((format(printf, 4, 5)));

/* A peak signal-to-noise ratio that must reach `bound` decibels. */
void report_psnr(struct report *report, const char *stage, double psnr, double bound);

/* A stage that could not be run. */
void report_failure(struct report *report, const char *stage, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
