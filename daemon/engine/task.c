/* task.c: see task.h. */
#include "daemon/engine/task.h"

#include <string.h>

static const char *const names[LANCE_TASK_COUNT] = {
    [LANCE_T2I] = "t2i",
    [LANCE_T2V] = "t2v",
    [LANCE_I2V] = "i2v",
    [LANCE_IMAGE_EDIT] = "image_edit",
    [LANCE_VIDEO_EDIT] = "video_edit",
    [LANCE_X2T_IMAGE] = "x2t_image",
    [LANCE_X2T_VIDEO] = "x2t_video",
    [LANCE_ENCODE] = "encode",
    [LANCE_DECODE] = "decode",
};

const char *lance_task_name(enum lance_task task)
{
    return (int)task >= 0 && task < LANCE_TASK_COUNT ? names[task] : "unknown";
}

int lance_task_of(const char *name)
{
    for (int task = 0; task < LANCE_TASK_COUNT; task++)
        if (!strcmp(names[task], name))
            return task;
    return -1;
}
