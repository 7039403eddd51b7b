/* system_prompt.c: see system_prompt.h. Source: data/system_prompt_render.py. */
#include "daemon/engine/system_prompt.h"

const char *system_prompt(enum lance_task task, bool has_text)
{
    switch (task) {
    case LANCE_T2I:
        return "Describe the image by detailing the color, quantity, text, shape, size, texture, spatial relationships "
               "of the "
               "objects and background:";
    case LANCE_T2V:
    case LANCE_I2V:
        return "Describe the video by detailing the color, quantity, visible text, shape, size, texture, spatial "
               "relationships "
               "and motion/camera movements of the objects and background:";
    case LANCE_IMAGE_EDIT:
        return "Describe the key features of the input image (color, shape, size, texture, objects, background), then "
               "explain "
               "how the user\u2019s text instruction should alter or modify the image. Generate a new image that meets "
               "the "
               "user\u2019s requirements while maintaining consistency with the original input where appropriate.";
    case LANCE_VIDEO_EDIT:
        return "Describe the key features of the input video (color, shape, size, texture, objects, background), then "
               "explain "
               "how the user\u2019s text instruction should alter or modify the video. Generate a new video that meets "
               "the "
               "user\u2019s requirements while maintaining consistency with the original input where appropriate.";
    case LANCE_X2T_IMAGE:
        return has_text
                   ? "Look at the image carefully and answer the question."
                   : "Generate a detailed and accurate description of the image, including all the key moments and "
                     "visual details.";
    case LANCE_X2T_VIDEO:
        return has_text
                   ? "Watch the video carefully and answer the question."
                   : "Generate a detailed and accurate description of the video, including all the key moments and "
                     "visual details.";
    case LANCE_ENCODE:
    case LANCE_DECODE:
    case LANCE_TASK_COUNT:
        break;
    }
    return "";
}
