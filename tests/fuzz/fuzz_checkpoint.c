/* fuzz_checkpoint.c: the small files of a checkpoint's folder: one of them is the input without its first byte, which
 * says which one; the others are the demo model's. It opens or is refused with words. FUZZ_MODELS: the folder where
 * another demo model lies, as make fuzz makes one of a single layer. */
#include <stdbool.h>
#include <sys/stat.h>

#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "tests/fuzz/scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Each kind of file lies in a folder of its own, in which all else is in place. */
static const struct {
    const char *folder, *of, *name;
} files[] = {
    {"llm", "lance-demo", "llm_config.json"},
    {"vit", "lance-demo", "Qwen2.5-VL-ViT/config.json"},
    {"tokens", "lance-demo", "tokenizer_config.json"},
    {"awq", "lance-demo-awq", "awq_meta.json"},
    {"nvfp4", "lance-demo-nvfp4", "nvfp4_meta.json"},
    {"shards", "lance-demo", "model.safetensors.index.json"},
};
enum { FILES = sizeof files / sizeof *files };

/* Copies of the folders by links to their files, made once; without the VAE, of which no small file says anything and
 * whose parsing would be most of the time. */
static void make_folders(void)
{
    static bool made;
    const char *models = getenv("FUZZ_MODELS");
    for (int i = 0; !made && i < FILES; i++) {
        char command[PATH_MAX];
        snprintf(command, sizeof command, "cp -rs \"$(realpath '%s/%s')\" %s/%s && rm -f %s/%s/Wan2.2_VAE.pth",
                 models ? models : "demo", files[i].of, scratch(), files[i].folder, scratch(), files[i].folder);
        if (system(command) != 0) {
            fputs("run this in the repository's folder\n", stderr);
            exit(1);
        }
    }
    made = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char name[256], path[PATH_MAX], folder[256];
    struct checkpoint *checkpoint = NULL;
    struct checkpoint_look look;
    struct error error = {0};
    if (bytes == 0)
        return 0;
    make_folders();
    const int which = data[0] % FILES;
    snprintf(folder, sizeof folder, "%s/%s", scratch(), files[which].folder);
    snprintf(name, sizeof name, "%s/%s", files[which].folder, files[which].name);
    scratch_write(path, name, data + 1, bytes - 1);
    const struct checkpoint_options options = {.model_dir = folder};
    if (checkpoint_look(&look, &options, &error) != 0 && error.text[0] == '\0')
        abort();
    error = (struct error){0};
    const int code = checkpoint_open(&checkpoint, &options, &error);
    if (code != 0 && (error.text[0] == '\0' || code == ERROR_INTERNAL))
        abort();
    checkpoint_close(checkpoint);
    return 0;
}
