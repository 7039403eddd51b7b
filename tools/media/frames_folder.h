/* frames_folder.h: a video as a folder: one picture per frame, in the order of their names, and fps.txt, which holds
 * the frames per second as one number or fraction (frame_rate.h). */
#ifndef LANCE_MEDIA_FRAMES_FOLDER_H
#define LANCE_MEDIA_FRAMES_FOLDER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "tools/media/clip.h"

/* Read the sampled frames, which take at most `max_bytes`. Pictures are the files named .png, .jpg, .jpeg, .webp, .bmp,
 * .tif, .tiff, .avif and .heic, turned as EXIF asks if `upright`; "10.png" comes after "9.png". `fps` replaces fps.txt;
 * 0: fps.txt is needed. Errors as video_read. */
int frames_folder_read(struct clip *clip, const char *path, double fps, bool upright, uint64_t max_bytes,
                       struct error *error);

/* Write RGB frames [frames, height, width, 3] as 00001.png, ... with the receipt in each, and fps.txt, into a new
 * folder, which appears whole or not at all. An empty folder of that name is replaced. Errors: ERROR_IO. */
int frames_folder_write(const char *path, const uint8_t *pixels, int frames, int height, int width, double fps,
                        const char *receipt, struct error *error);

/* Whether a folder could be written there: nothing is in the way. ERROR_IO otherwise. */
int frames_folder_check(const char *path, struct error *error);

#endif
