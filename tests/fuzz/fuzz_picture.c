/* fuzz_picture.c: pictures of every kind (tools/media/still.h), and y4m clips: whatever a file says, a picture within
 * the limits or words. */
#include "tests/fuzz/scratch.h"
#include "tools/media/still.h"
#include "tools/media/video_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static volatile uint8_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    enum { MOST_BYTES = 1 << 16 };
    char path[PATH_MAX];
    struct clip clip = {0};
    struct error error = {0};
    const bool is_clip = bytes >= 9 && memcmp(data, "YUV4MPEG2", 9) == 0;
    scratch_write(path, is_clip ? "input.y4m" : "input", data, bytes);
    const int code = is_clip ? video_read(&clip, path, 0.0, MOST_BYTES, &error)
                             : still_read_clip(&clip, path, bytes % 2 == 0, MOST_BYTES, &error);
    if (code != 0) {
        if (error.text[0] == '\0' || code == ERROR_INTERNAL)
            abort();
        return 0;
    }
    const size_t size = (size_t)clip.frames * (size_t)clip.height * (size_t)clip.width * 3;
    if (clip.frames < 1 || clip.height < 1 || clip.width < 1 || size > MOST_BYTES)
        abort();
    for (size_t i = 0; i < size; i++)
        sink ^= clip.pixels[i];
    clip_free(&clip);
    return 0;
}
