/* workspace.c: see workspace.h. */
#include "daemon/engine/model/workspace.h"

#include <assert.h>
#include <string.h>

size_t workspace_take(struct workspace *workspace, size_t elements)
{
    assert(workspace->pieces < WORKSPACE_MAX_PIECES);
    elements = (elements + WORKSPACE_ALIGNMENT - 1) / WORKSPACE_ALIGNMENT * WORKSPACE_ALIGNMENT;
    size_t at = 0;
    int i = 0;
    for (; i < workspace->pieces && workspace->piece[i].at - at < elements; i++)
        at = workspace->piece[i].at + workspace->piece[i].elements;
    memmove(&workspace->piece[i + 1], &workspace->piece[i],
            (size_t)(workspace->pieces - i) * sizeof workspace->piece[0]);
    workspace->piece[i].at = at;
    workspace->piece[i].elements = elements;
    workspace->pieces++;
    if (at + elements > workspace->peak)
        workspace->peak = at + elements;
    return at;
}

void workspace_give(struct workspace *workspace, size_t at)
{
    int i = 0;
    while (i < workspace->pieces && workspace->piece[i].at != at)
        i++;
    assert(i < workspace->pieces);
    workspace->pieces--;
    memmove(&workspace->piece[i], &workspace->piece[i + 1],
            (size_t)(workspace->pieces - i) * sizeof workspace->piece[0]);
}
