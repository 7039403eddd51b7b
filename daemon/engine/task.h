/* task.h: what can be asked of a model, and what each task takes and makes. */
#ifndef LANCE_TASK_H
#define LANCE_TASK_H

#include <stdbool.h>

enum lance_task {
    LANCE_T2I, LANCE_T2V, LANCE_I2V, LANCE_IMAGE_EDIT, LANCE_VIDEO_EDIT, LANCE_X2T_IMAGE, LANCE_X2T_VIDEO,
    LANCE_ENCODE, /* frames to latents, by the VAE alone */
    LANCE_DECODE, /* latents to frames, by the VAE alone */
    LANCE_TASK_COUNT
};

/* "t2i", "t2v", "i2v", "image_edit", "video_edit", "x2t_image", "x2t_video", "encode", "decode". */
const char *lance_task_name(enum lance_task task);
int lance_task_of(const char *name); /* or -1 */

/* Makes text of frames. */
static inline bool task_answers(enum lance_task task) { return task == LANCE_X2T_IMAGE || task == LANCE_X2T_VIDEO; }
/* Makes frames of frames, as words say. */
static inline bool task_edits(enum lance_task task) { return task == LANCE_IMAGE_EDIT || task == LANCE_VIDEO_EDIT; }
/* Denoises latents. */
static inline bool task_samples(enum lance_task task) { return task <= LANCE_VIDEO_EDIT; }
/* Is the VAE's alone. */
static inline bool task_is_of_vae(enum lance_task task) { return task == LANCE_ENCODE || task == LANCE_DECODE; }
static inline bool task_has_source(enum lance_task task)
{
    return task_answers(task) || task_edits(task) || task == LANCE_I2V || task == LANCE_ENCODE;
}
static inline bool task_takes_video(enum lance_task task)
{
    return task == LANCE_VIDEO_EDIT || task == LANCE_X2T_VIDEO;
}
static inline bool task_makes_video(enum lance_task task)
{
    return task == LANCE_T2V || task == LANCE_I2V || task == LANCE_VIDEO_EDIT;
}

#endif
