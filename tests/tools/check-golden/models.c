/* models.c: see models.h. */
#include "tests/tools/check-golden/models.h"
#include "tests/golden/assemble.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int models_open(struct models *m, const char *golden_dir, const struct backend_options *backend, struct error *error)
{
    *m = (struct models){0};
    const char *place = getenv("TMPDIR");
    snprintf(m->golden_dir, sizeof m->golden_dir, "%s", golden_dir);
    snprintf(m->folder, sizeof m->folder, "%.40s/check-golden-XXXXXX", place && *place ? place : "/tmp");
    if (!mkdtemp(m->folder)) {
        int code = error_set(error, ERROR_IO, "%s: %s", m->folder, strerror(errno));
        m->folder[0] = 0;
        return code;
    }
    int code = backend_open(&m->kernels, backend, NULL, error);
    if (!code && (m->kernels->act_bytes < sizeof(float) || m->kernels->rounds))
        code = golden_read_distances(&m->distances, golden_dir, error);
    return code;
}

int models_for(struct models *m, const struct golden *golden, struct lance_model **model, struct error *error)
{
    const bool rounded = golden_rounds_tables(golden);
    if (m->model && !strcmp(m->quant, golden->quant) && m->rounded == rounded) {
        *model = m->model;
        return 0;
    }
    lance_model_close(m->model);
    m->model = NULL;
    char folder[160];
    struct stat status;
    snprintf(folder, sizeof folder, "%s/%s", m->folder, *golden->quant ? golden->quant : "plain");
    if (stat(folder, &status)) {
        int code = assemble_checkpoint(m->golden_dir, *golden->quant ? golden->quant : NULL, folder, error);
        if (code)
            return code;
    }
    const struct lance_model_options options = {
        .model_dir = folder, .position_tables = rounded ? LANCE_TABLES_BF16 : LANCE_TABLES_F32};
    int code = lance_model_open(&m->model, m->kernels, &options, error);
    snprintf(m->quant, sizeof m->quant, "%s", golden->quant);
    m->rounded = rounded;
    *model = m->model;
    return code;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status;
    (void)type;
    (void)where;
    return remove(path);
}

void models_close(struct models *m)
{
    lance_model_close(m->model);
    cJSON_Delete(m->distances);
    if (m->kernels)
        m->kernels->close(m->kernels);
    if (*m->folder)
        nftw(m->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}
