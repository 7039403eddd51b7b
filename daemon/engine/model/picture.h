/* picture.h: what the official preprocessing does to pictures and frames before the VAE and the ViT.
 *
 * Buckets, centre crop, Pillow's 8-bit bicubic resampling (base/bicubic.h), crop to multiples (LANCE.md section 5).
 * Which frames of a video are taken says protocol/clip_sampling.h. Plain functions on host memory; any thread.
 */
#ifndef LANCE_PICTURE_H
#define LANCE_PICTURE_H

#include <stdint.h>

#include "base/error.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"

enum { PICTURE_MAX_PREPARED_SIDE = 1152 }; /* the longest side that the official presets give (21:9 of image_768res) */

struct picture_size { int height, width; };

enum { PICTURE_VIT_PATCH = CHECKPOINT_VIT_PATCH, PICTURE_VIT_MULTIPLE = 2 * PICTURE_VIT_PATCH }; /* what the ViT's
                                                                                                  * pictures are
                                                                                                  * prepared for:
                                                                                                  * patches, merged
                                                                                                  * by 2x2 */

extern const char *const picture_preset_names[]; /* ended by NULL */

enum picture_use { PICTURE_FOR_VAE, PICTURE_FOR_VIT };

/* The size a height x width source gets under a resolution preset ("image_256res", "video_192p", "image_512res",
 * "image_768res", "video_360p", "video_480p"); for the ViT already cropped to multiples of 28. A preset of the form
 * "HEIGHTxWIDTH" is taken as given (rounded down to multiples of 16, or 28 for the ViT); "HEIGHTxWIDTH/HEIGHTxWIDTH"
 * has a size of its own for the ViT.
 * ERROR_BAD_REQUEST names the presets. */
int picture_bucket(const char *resolution, enum picture_use use, int height, int width, struct picture_size *size,
                   struct error *error);

/* The whole path for one frame: centre crop to the bucket's aspect, resize to the bucket, crop (ViT only). `out` is
 * [size.height, size.width, 3] with the size that picture_bucket gave for the same arguments. */
int picture_prepare(const uint8_t *in, int height, int width, const char *resolution, enum picture_use use,
                    uint8_t *out, struct error *error);

#endif
