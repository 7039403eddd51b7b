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

/* Of several tasks: bit (1 << task) for each. */
enum {
    TASKS_FROM_WORDS = 1u << LANCE_T2I | 1u << LANCE_T2V,              /* there is no source */
    TASKS_THAT_EDIT = 1u << LANCE_IMAGE_EDIT | 1u << LANCE_VIDEO_EDIT, /* make frames of frames, as words say */
    TASKS_THAT_SAMPLE = TASKS_FROM_WORDS | TASKS_THAT_EDIT | 1u << LANCE_I2V, /* denoise latents */
    TASKS_THAT_ANSWER = 1u << LANCE_X2T_IMAGE | 1u << LANCE_X2T_VIDEO, /* make text of frames */
    TASKS_OF_VAE = 1u << LANCE_ENCODE | 1u << LANCE_DECODE,            /* are the VAE's alone */
    TASKS_WITH_SOURCE = TASKS_THAT_EDIT | TASKS_THAT_ANSWER | 1u << LANCE_I2V | 1u << LANCE_ENCODE,
    TASKS_THAT_TAKE_VIDEO = 1u << LANCE_VIDEO_EDIT | 1u << LANCE_X2T_VIDEO,
    TASKS_THAT_MAKE_VIDEO = 1u << LANCE_T2V | 1u << LANCE_I2V | 1u << LANCE_VIDEO_EDIT,
    ALL_TASKS = (1u << LANCE_TASK_COUNT) - 1
};

static inline bool task_is_of(enum lance_task task, unsigned tasks)
{
    return (unsigned)task < LANCE_TASK_COUNT && (tasks >> task & 1) != 0;
}
static inline bool task_answers(enum lance_task task) { return task_is_of(task, TASKS_THAT_ANSWER); }
static inline bool task_edits(enum lance_task task) { return task_is_of(task, TASKS_THAT_EDIT); }
static inline bool task_samples(enum lance_task task) { return task_is_of(task, TASKS_THAT_SAMPLE); }
static inline bool task_is_of_vae(enum lance_task task) { return task_is_of(task, TASKS_OF_VAE); }
static inline bool task_has_source(enum lance_task task) { return task_is_of(task, TASKS_WITH_SOURCE); }
static inline bool task_takes_video(enum lance_task task) { return task_is_of(task, TASKS_THAT_TAKE_VIDEO); }
static inline bool task_makes_video(enum lance_task task) { return task_is_of(task, TASKS_THAT_MAKE_VIDEO); }

#endif
