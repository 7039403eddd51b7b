/* picture.h: what the official preprocessing does to pictures and frames before the VAE and the ViT.
 *
 * Buckets, centre crop, Pillow's 8-bit bicubic resampling (bit-exact), crop to multiples,
 * and the choice of video frames (LANCE.md section 5). Plain functions on host memory; any thread.
 */
#ifndef LANCE_PICTURE_H
#define LANCE_PICTURE_H

#include <stdint.h>

#include "base/error.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"

enum { PICTURE_MAX_PREPARED_SIDE = 1152 }; /* the longest side that the official presets give (21:9 of image_768res) */

struct picture_size { int height, width; };

enum { PICTURE_VIT_PATCH = CHECKPOINT_VIT_PATCH, PICTURE_VIT_MULTIPLE = 2 * PICTURE_VIT_PATCH }; /* what the ViT's pictures are prepared for: patches, merged by 2x2 */

/* Frames per second that a source may have. */
#define PICTURE_MIN_FPS 0.01
#define PICTURE_MAX_FPS 1000.0

extern const char *const picture_preset_names[]; /* ended by NULL */

enum picture_use { PICTURE_FOR_VAE, PICTURE_FOR_VIT };

/* The size a height x width source gets under a resolution preset ("image_256res", "video_192p", "image_512res",
 * "image_768res", "video_360p", "video_480p"); for the ViT already cropped to multiples of 28. A preset of the form
 * "HEIGHTxWIDTH" is taken as given (rounded down to multiples of 16, or 28 for the ViT); "HEIGHTxWIDTH/HEIGHTxWIDTH"
 * has a size of its own for the ViT.
 * ERROR_BAD_REQUEST names the presets. */
int picture_bucket(const char *resolution, enum picture_use use, int height, int width, struct picture_size *size,
                   struct error *error);

/* Pillow's Image.resize(BICUBIC) for 8-bit RGB, bit for bit. `out` is [out_height, out_width, 3]. ERROR_NO_MEMORY. */
int picture_resize_bicubic(const uint8_t *in, int height, int width, uint8_t *out, int out_height, int out_width,
                           struct error *error);

/* The whole path for one frame: centre crop to the bucket's aspect, resize to the bucket, crop (ViT only). `out` is
 * [size.height, size.width, 3] with the size that picture_bucket gave for the same arguments. */
int picture_prepare(const uint8_t *in, int height, int width, const char *resolution, enum picture_use use,
                    uint8_t *out, struct error *error);

/* Indices of the frames that the official sampler takes of a clip of `count` frames at `fps`. `indices` has room for
 * `capacity`; returns how many, or an error (no frames, fps out of range, capacity too small). The
 * sampler rounds the rate; one below 0.5, by which the official code would divide by zero, counts as 1. */
int picture_sample_frames(int count, double fps, int *indices, int capacity, struct error *error);

#endif
