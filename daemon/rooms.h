/* rooms.h: where the service finds what it asks: the job table, the journal, and what the worker owns (worker.h). */
#ifndef LANCE_ROOMS_H
#define LANCE_ROOMS_H

struct rooms {
    struct jobs *jobs;
    struct recorder *recorder; /* NULL: no journal is kept */
    const struct kept_results *kept; /* NULL: results are not kept for the same request */
    const struct device *device;
    struct residency *residency;
    struct loading *loading;
    struct runner *runner;
    struct calibration *calibration; /* NULL: nothing is counted */
};

#endif
