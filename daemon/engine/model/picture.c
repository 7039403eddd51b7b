/* picture.c: see picture.h. Sources: data/video/transforms (buckets, crops) of the official code, and torchvision's
 * RandomResizedCrop with the fixed scale and ratio that it is given there. */
#include "daemon/engine/model/picture.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bicubic.h"
#include "protocol/latent_shape.h"

enum { MAX_SIDE = 16384 };

enum { PRESETS = 6 };
const char *const picture_preset_names[PRESETS + 1] = {
    "image_256res", "image_512res", "image_768res", "video_192p", "video_360p", "video_480p", NULL};

/* A preset allows areas of side x side. */
static const struct {
    int vae, vit;
} preset_sides[PRESETS] = {{256, 224}, {512, 448}, {768, 672}, {256, 224}, {480, 476}, {640, 616}};

static const struct { int width, height; } aspects[] = {{21, 9}, {16, 9}, {4, 3}, {1, 1}, {3, 4}, {9, 16}};
enum { ASPECTS = sizeof aspects / sizeof *aspects };

/* What a source is cropped to in shape and resized to (`bucket`), and what of it is kept (`size`). */
struct target { struct picture_size bucket, size; };

static double ratio_of(struct picture_size size)
{
    return (double)size.width / size.height;
}

static int to_stride(double length)
{
    return (int)rint(length / VAE_SPATIAL_STRIDE) * VAE_SPATIAL_STRIDE;
}

/* The size nearest to an aspect whose area is about side^2: either the width is rounded first or the height, whichever
 * keeps the aspect better, and of equals the better area. */
static struct picture_size bucket_of(int side, double aspect)
{
    double area = (double)side * side;
    struct picture_size by_width, by_height;
    by_width.width = to_stride(sqrt(area * aspect));
    by_width.height = to_stride(by_width.width / aspect);
    by_height.height = to_stride(sqrt(area / aspect));
    by_height.width = to_stride(by_height.height * aspect);
    double width_error = fabs(ratio_of(by_width) - aspect), height_error = fabs(ratio_of(by_height) - aspect);
    if (width_error != height_error)
        return width_error < height_error ? by_width : by_height;
    double width_area = fabs((double)by_width.width * by_width.height - area);
    double height_area = fabs((double)by_height.width * by_height.height - area);
    return width_area <= height_area ? by_width : by_height;
}

static struct picture_size nearest_bucket(int side, int height, int width)
{
    double ratio = (double)width / height, best_distance = INFINITY;
    struct picture_size best = {0, 0};
    for (int i = 0; i < ASPECTS; i++) {
        struct picture_size bucket = bucket_of(side, (double)aspects[i].width / aspects[i].height);
        double distance = fabs(ratio - ratio_of(bucket));
        if (distance < best_distance) {
            best = bucket;
            best_distance = distance;
        }
    }
    return best;
}

static int unknown_resolution(const char *resolution, struct error *error)
{
    return error_set(error, ERROR_BAD_REQUEST,
                     "resolution \"%.40s\" is not known; give image_256res, image_512res, image_768res, video_192p, "
                     "video_360p, video_480p, HEIGHTxWIDTH such as 480x848, or 480x848/448x812 with a size for the ViT",
                     resolution);
}

/* "HEIGHTxWIDTH" is meant for both uses; in "HEIGHTxWIDTH/HEIGHTxWIDTH" the second size is the ViT's. */
static bool read_size(const char *resolution, enum picture_use use, struct picture_size *size)
{
    struct picture_size for_vit;
    int end = 0, end_for_vit = 0;
    if (strspn(resolution, "0123456789x/") != strlen(resolution))
        return false;
    int numbers = sscanf(resolution, "%5dx%5d%n/%5dx%5d%n", &size->height, &size->width, &end, &for_vit.height,
                         &for_vit.width, &end_for_vit);
    if (numbers == 2)
        return !resolution[end];
    if (numbers != 4 || resolution[end_for_vit])
        return false;
    if (use == PICTURE_FOR_VIT)
        *size = for_vit;
    return true;
}

static int find_target(const char *resolution, enum picture_use use, int height, int width, struct target *target,
                       struct error *error)
{
    if (height < 1 || width < 1 || height > MAX_SIDE || width > MAX_SIDE)
        return error_set(error, ERROR_BAD_REQUEST, "a picture of %dx%d pixels; sides from 1 to %d are accepted", width,
                         height, MAX_SIDE);
    int multiple = use == PICTURE_FOR_VIT ? PICTURE_VIT_MULTIPLE : VAE_SPATIAL_STRIDE;
    for (int i = 0; i < PRESETS; i++)
        if (!strcmp(resolution, picture_preset_names[i])) {
            int side = use == PICTURE_FOR_VIT ? preset_sides[i].vit : preset_sides[i].vae;
            target->bucket = nearest_bucket(side, height, width);
            target->size.height = target->bucket.height / multiple * multiple;
            target->size.width = target->bucket.width / multiple * multiple;
            return 0;
        }
    struct picture_size asked;
    if (!read_size(resolution, use, &asked))
        return unknown_resolution(resolution, error);
    if (asked.height < PICTURE_VIT_MULTIPLE || asked.width < PICTURE_VIT_MULTIPLE ||
        asked.height > PICTURE_MAX_PREPARED_SIDE || asked.width > PICTURE_MAX_PREPARED_SIDE)
        return error_set(error, ERROR_BAD_REQUEST, "resolution is %s; accepted are sides from %d to %d", resolution,
                         PICTURE_VIT_MULTIPLE, PICTURE_MAX_PREPARED_SIDE);
    target->size.height = asked.height / multiple * multiple;
    target->size.width = asked.width / multiple * multiple;
    target->bucket = target->size;
    return 0;
}

int picture_bucket(const char *resolution, enum picture_use use, int height, int width, struct picture_size *size,
                   struct error *error)
{
    struct target target;
    int code = find_target(resolution, use, height, width, &target, error);
    if (code == 0)
        *size = target.size;
    return code;
}

/* The part of a height x width source that has the aspect of the bucket. A box of the source's area and the bucket's
 * aspect is taken when it fits, which happens only when the aspects are all but equal; it may be a pixel smaller than
 * the source, and where it then lies is random in the official code and the middle here. Otherwise the largest part. */
static struct picture_size crop_to_aspect(int height, int width, struct picture_size bucket)
{
    double ratio = ratio_of(bucket), area = (double)height * width;
    double rounded_ratio = expf(logf((float)ratio));
    struct picture_size box = {(int)rint(sqrt(area / rounded_ratio)), (int)rint(sqrt(area * rounded_ratio))};
    if (box.height > 0 && box.height <= height && box.width > 0 && box.width <= width)
        return box;
    double source_ratio = (double)width / height;
    box = (struct picture_size){height, width};
    if (source_ratio < ratio)
        box.height = (int)rint(width / ratio);
    else if (source_ratio > ratio)
        box.width = (int)rint(height * ratio);
    box.height = box.height < 1 ? 1 : box.height;
    box.width = box.width < 1 ? 1 : box.width;
    return box;
}

int picture_prepare(const uint8_t *in, int height, int width, const char *resolution, enum picture_use use,
                    uint8_t *out, struct error *error)
{
    struct target target;
    int code = find_target(resolution, use, height, width, &target, error);
    if (code < 0)
        return code;
    struct picture_size bucket = target.bucket, size = target.size;
    struct picture_size crop = crop_to_aspect(height, width, bucket);
    size_t stride = 3 * (size_t)width;
    in += (size_t)((height - crop.height) / 2) * stride + 3 * (size_t)((width - crop.width) / 2);
    if (bucket.height == size.height && bucket.width == size.width)
        return bicubic_resize(in, stride, crop.height, crop.width, out, size.height, size.width, error);

    size_t bucket_stride = 3 * (size_t)bucket.width;
    uint8_t *resized = malloc(bucket_stride * (size_t)bucket.height);
    if (!resized)
        return error_set(error, ERROR_NO_MEMORY, "out of memory for resizing a picture");
    code = bicubic_resize(in, stride, crop.height, crop.width, resized, bucket.height, bucket.width, error);
    if (code == 0) {
        size_t top = (size_t)rint((bucket.height - size.height) / 2.0);
        size_t left = (size_t)rint((bucket.width - size.width) / 2.0);
        for (size_t y = 0; y < (size_t)size.height; y++)
            memcpy(out + y * 3 * (size_t)size.width, resized + (top + y) * bucket_stride + 3 * left,
                   3 * (size_t)size.width);
    }
    free(resized);
    return code;
}
