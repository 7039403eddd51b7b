/* video_file.h: video files through libav: mp4 and webm in and out, y4m in and out, more kinds in.
 *
 * Reading takes the frames in the order of display, as they are: a file with a variable frame
 * rate counts as one with its average rate (that is what the official code's reader does). A
 * rotation by quarter turns that the file notes is applied, as there.
 */
#ifndef LANCE_MEDIA_VIDEO_FILE_H
#define LANCE_MEDIA_VIDEO_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "tools/media/clip.h"

enum video_format { VIDEO_MP4, VIDEO_WEBM, VIDEO_Y4M };

/* Read the sampled frames of a video, which take at most `max_bytes`. `fps` replaces the file's rate; 0: the file's.
 * The message names the file. Errors: ERROR_UNSUPPORTED (no video of an accepted kind), ERROR_BAD_FILE,
 * ERROR_TOO_LARGE, ERROR_NO_MEMORY. */
int video_read(struct clip *clip, const char *path, double fps, uint64_t max_bytes, struct error *error);

/* Write RGB frames [frames, height, width, 3] as one file that appears whole or not at all: mp4 with H.264, webm with
 * VP9 (both 4:2:0, so of even sides), or y4m (4:4:4, uncompressed). `receipt` goes into the container's comment; y4m
 * has none. Errors: ERROR_IO with the reason, ERROR_UNSUPPORTED for odd sides or when this libav lacks the encoder. */
int video_write(const char *path, enum video_format format, const uint8_t *pixels, int frames, int height, int width,
                double fps, const char *receipt, struct error *error);

/* Whether this libav has the encoder that a format takes, and its name. */
bool video_can_write(enum video_format format, const char **encoder);

/* What else goes into an mp4: texts of its metadata, and the sound of another file, as it is there, as far as the
 * frames last. Each may be NULL. */
struct video_extras {
    const char *prompt, *workflow, *receipt;
    const char *sound;
};

/* The same as mp4, with more in it. *left_out: the sound is of a kind that mp4 does not hold. */
int video_write_extras(const char *path, const uint8_t *pixels, int frames, int height, int width, double fps,
                       const struct video_extras *extras, bool *left_out, struct error *error);

/* Copy a video with its sound into an mp4, frames as they are encoded. *left_out as above. Errors as video_write;
 * ERROR_UNSUPPORTED for frames of a kind that mp4 does not hold. */
int video_copy(const char *path, const char *from, const struct video_extras *extras, bool *left_out,
               struct error *error);

/* The size of a video's frames, before they are turned; zeros where it cannot be read. */
void video_size(const char *path, int *width, int *height);

/* The comment of a video file: malloc'ed. Errors: ERROR_UNSUPPORTED (no video), ERROR_BAD_FILE (without a comment). */
int video_read_receipt(char **receipt, const char *path, struct error *error);

#endif
