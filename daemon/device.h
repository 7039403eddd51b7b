/* device.h: the backend that jobs run on, opened as the command line says. The worker's thread alone uses its
 * operators. */
#ifndef LANCE_DEVICE_H
#define LANCE_DEVICE_H

#include "daemon/options.h"

struct kernels;

struct device {
    struct kernels *kernels;
    char advice[160];          /* what would make it faster, a line; or empty */
    struct error why_not_cuda; /* code 0: it is used, or was not asked for; ERROR_NOT_FOUND: there is no plugin */
};

/* Errors: those of backend_open. */
int device_open(struct device *device, const struct options *options, struct error *error);

/* All zero is allowed. */
void device_close(struct device *device);

#endif
