/* limits.h: how much a state folder keeps. */
#ifndef LANCE_JOURNAL_LIMITS_H
#define LANCE_JOURNAL_LIMITS_H

#include <stdint.h>

struct journal_limits {
    uint64_t result_bytes; /* of results that wait for their clients, */
    double result_seconds; /* for so long after their end */
    uint64_t cache_bytes;  /* of results kept for the same request; 0: none */
};

#endif
