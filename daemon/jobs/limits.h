/* limits.h: how much the job table holds. */
#ifndef LANCE_JOBS_LIMITS_H
#define LANCE_JOBS_LIMITS_H

#include <stdint.h>

struct jobs_limits {
    int queue;             /* jobs waiting at most; */
    uint64_t queue_bytes;  /* what their requests may take, the running job's with them */
    int results;           /* ended jobs kept at most, */
    uint64_t result_bytes; /* in at most so many bytes, */
    double result_seconds; /* for so long */
    double orphan_seconds; /* a job that nobody has asked about for so long is cancelled; 0: never */
};

#endif
