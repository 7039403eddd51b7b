/* frames.c: see frames.h. */
#include "tests/tools/check-golden/frames.h"

#include <dirent.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Pillow's blend of 8-bit values: (a * (255 - mask) + b * mask) / 255, rounded. */
static uint8_t blend(unsigned a, unsigned b, unsigned mask)
{
    unsigned sum = a * (255 - mask) + b * mask + 128;
    return (uint8_t)(((sum >> 8) + sum) >> 8);
}

/* Append a PNG file to `pixels`. The first picture decides the size. */
static int append_picture(struct lance_media *media, uint8_t **pixels, const char *path, struct error *error)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    if (!png_image_begin_read_from_file(&image, path))
        return error_set(error, ERROR_BAD_FILE, "%s: %s", path, image.message);
    image.format = PNG_FORMAT_RGBA;
    uint8_t *rgba = malloc(PNG_IMAGE_SIZE(image));
    if (!rgba)
        abort();
    if (!png_image_finish_read(&image, NULL, rgba, 0, NULL)) {
        free(rgba);
        return error_set(error, ERROR_BAD_FILE, "%s: %s", path, image.message);
    }
    if (media->frames == 0) {
        media->height = (int)image.height;
        media->width = (int)image.width;
    }
    size_t cells = (size_t)media->height * (size_t)media->width;
    if (cells != (size_t)image.height * image.width) {
        free(rgba);
        return error_set(error, ERROR_BAD_FILE, "%s has another size than the frames before", path);
    }
    *pixels = realloc(*pixels, (size_t)(media->frames + 1) * cells * 3);
    if (!*pixels)
        abort();
    uint8_t *out = *pixels + (size_t)media->frames++ * cells * 3;
    for (size_t i = 0; i < cells; i++)
        for (size_t c = 0; c < 3; c++)
            out[i * 3 + c] = blend(255, rgba[i * 4 + c], rgba[i * 4 + 3]);
    free(rgba);
    return 0;
}

static int is_png(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot && !strcmp(dot, ".png");
}

static double read_fps(const char *folder)
{
    char path[1200];
    double fps = 0;
    snprintf(path, sizeof path, "%s/fps.txt", folder);
    FILE *file = fopen(path, "r");
    if (file) {
        if (fscanf(file, "%lf", &fps) != 1)
            fps = 0;
        fclose(file);
    }
    return fps;
}

int frames_read(struct lance_media *media, const char *path, struct error *error)
{
    struct stat status;
    uint8_t *pixels = NULL;
    int code = 0;
    *media = (struct lance_media){0};
    if (!stat(path, &status) && S_ISDIR(status.st_mode)) {
        struct dirent **entries = NULL;
        int count = scandir(path, &entries, is_png, alphasort);
        for (int i = 0; i < count; i++) {
            char file[1400];
            snprintf(file, sizeof file, "%s/%s", path, entries[i]->d_name);
            code = code ? code : append_picture(media, &pixels, file, error);
            free(entries[i]);
        }
        free(entries);
        media->fps = read_fps(path);
        if (count <= 0)
            code = error_set(error, ERROR_BAD_FILE, "%s has no pictures", path);
    } else {
        code = append_picture(media, &pixels, path, error);
    }
    media->pixels = pixels;
    if (code)
        frames_free(media);
    return code;
}

void frames_free(struct lance_media *media)
{
    free((void *)(uintptr_t)media->pixels);
    *media = (struct lance_media){0};
}
