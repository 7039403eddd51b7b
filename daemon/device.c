/* device.c: see device.h. */
#include "daemon/device.h"

#include <stdio.h>

#include "daemon/log.h"
#include "kernels/kernels.h"

int device_open(struct device *device, const struct options *options, struct error *error)
{
    struct error *why_not_cuda = &device->why_not_cuda;
    *device = (struct device){0};
    int status = backend_open(&device->kernels, &options->backend, why_not_cuda, error);
    if (status != 0)
        return status;
    if (why_not_cuda->code == 0)
        log_info(NULL, "backend %s", device->kernels->name);
    else
        log_info(NULL, "backend %s (%s)", device->kernels->name, why_not_cuda->text);
    const double gain = backend_bf16_gain(device->kernels, &options->backend);
    if (gain > 0.0) {
        snprintf(device->advice, sizeof device->advice,
                 "products in bf16, the official code's precision, are %.1f times as fast on this processor: "
                 "--precision auto", gain);
        log_info(NULL, "%s", device->advice);
    }
    return 0;
}

void device_close(struct device *device)
{
    if (device->kernels)
        device->kernels->close(device->kernels);
    *device = (struct device){0};
}
