/* offered_models.c: see offered_models.h. */
#include "daemon/offered_models.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/utf8.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static bool is_taken(const struct offered_models *offered, const char *name)
{
    for (int i = 0; i < *offered->count; i++)
        if (strcmp(offered->models[i].name, name) == 0)
            return true;
    return false;
}

/* Take a model's name. ERROR_BAD_REQUEST when clients could not ask for it. `text` is what the command line has. */
static int name_model(struct model_choice *model, const char *name, size_t length, const char *text,
                      struct error *error)
{
    if (length == 0 || length > MODEL_NAME_MAX_BYTES)
        return error_set(error, ERROR_BAD_REQUEST, "--model %s: the name must have 1 to %d bytes; give one: NAME=DIR",
                         text, MODEL_NAME_MAX_BYTES);
    if (!utf8_is_valid(name, length))
        return error_set(error, ERROR_BAD_REQUEST, "--model %s: the name must be UTF-8 text; give one: NAME=DIR", text);
    memcpy(model->name, name, length);
    model->name[length] = '\0';
    return 0;
}

static void leave_out(const struct offered_models *offered, const struct error *why)
{
    struct error remark;
    error_set(&remark, why->code, "%s; it is not offered", why->text);
    offered->remark(offered->context, &remark);
}

/* --- Named by the command line ------------------------------------------------------------- */

/* The DIR of DIR or NAME=DIR: behind the last '=' before any '/' that leaves a folder, since names and folders may
 * hold one. */
static const char *directory_of(const char *text)
{
    const char *end = text + strcspn(text, "/");
    for (const char *at = end; at > text; at--)
        if (at[-1] == '=' && is_folder(at))
            return at;
    const char *equals = is_folder(text) ? NULL : memchr(text, '=', (size_t)(end - text));
    return equals ? equals + 1 : text;
}

int offered_add(const struct offered_models *offered, const char *text, struct error *error)
{
    if (*offered->count == OFFERED_MAX_MODELS)
        return error_set(error, ERROR_BAD_REQUEST, "--model: at most %d models can be offered", OFFERED_MAX_MODELS);
    struct model_choice *model = &offered->models[*offered->count];
    model->directory = directory_of(text);
    bool named = model->directory != text;

    char path[PATH_MAX];
    struct stat info;
    if (stat(model->directory, &info) != 0)
        return error_set(error, ERROR_BAD_FILE, "--model %s: %s", model->directory, strerror(errno));
    if (!S_ISDIR(info.st_mode))
        return error_set(error, ERROR_BAD_FILE, "--model %s: must be the checkpoint's folder, not a file",
                         model->directory);
    const char *name = text;
    size_t length = named ? (size_t)(model->directory - 1 - text) : 0;
    if (!named) { /* "." and "dir/" have a last component too */
        if (!realpath(model->directory, path))
            return error_set(error, ERROR_BAD_FILE, "--model %s: %s", model->directory, strerror(errno));
        name = strrchr(path, '/') + 1;
        length = strlen(name);
    }
    struct error odd;
    if (name_model(model, name, length, text, &odd) != 0) { /* who offers many models is not to fail because of one */
        leave_out(offered, &odd);
        return 0;
    }
    if (is_taken(offered, model->name))
        return error_set(error, ERROR_BAD_REQUEST, "--model: two models are named \"%s\"; name them: NAME=DIR",
                         model->name);
    ++*offered->count;
    return 0;
}

/* --- Found in a folder --------------------------------------------------------------------- */

/* Whether there are weights at `path`. Of a folder that has them but not all that they need, or that shows by its files
 * why it can be none, the user is told what is wrong. */
static bool is_checkpoint(const struct offered_models *offered, const char *path)
{
    const struct checkpoint_options options = {.model_dir = path};
    struct checkpoint_look look;
    struct error odd = {0};
    if (access(path, X_OK) != 0) /* it would look as if nothing were in it */
        error_set(&odd, ERROR_BAD_FILE, "%s: %s", path, strerror(errno));
    if (odd.code != 0 || checkpoint_look(&look, &options, &odd) != 0) {
        leave_out(offered, &odd);
        return false;
    }
    if (look.has_weights && look.missing[0] != '\0') {
        error_set(&odd, ERROR_BAD_FILE, "%s: lacks %s", path, look.missing);
        offered->remark(offered->context, &odd);
    }
    return look.has_weights;
}

static int add_found(const struct offered_models *offered, const char *folder, const char *name, struct error *error)
{
    char path[PATH_MAX];
    struct model_choice model = {0};
    struct error odd = {0};
    if (name[0] == '.' || snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path || !is_folder(path) ||
        !is_checkpoint(offered, path))
        return 0;
    if (name_model(&model, name, strlen(name), path, &odd) == 0) {
        if (is_taken(offered, model.name))
            error_set(&odd, ERROR_BAD_REQUEST, "%s: there is a model of this name already", path);
        else if (*offered->count == OFFERED_MAX_MODELS)
            error_set(&odd, ERROR_BAD_REQUEST, "%s: at most %d models can be offered", path, OFFERED_MAX_MODELS);
    }
    if (odd.code != 0) {
        leave_out(offered, &odd);
        return 0;
    }
    model.directory = strdup(path);
    if (!model.directory)
        return error_set(error, ERROR_NO_MEMORY, "--models %s: no memory for its models", folder);
    offered->models[(*offered->count)++] = model;
    return 0;
}

int offered_add_folder(const struct offered_models *offered, const char *folder, struct error *error)
{
    struct dirent **entries;
    const int found = scandir(folder, &entries, NULL, alphasort);
    if (found < 0)
        return error_set(error, errno == ENOMEM ? ERROR_NO_MEMORY : ERROR_BAD_FILE, "--models %s: %s", folder,
                         strerror(errno));
    int code = 0;
    for (int i = 0; i < found; i++) {
        if (code == 0)
            code = add_found(offered, folder, entries[i]->d_name, error);
        free(entries[i]);
    }
    free(entries);
    return code;
}
