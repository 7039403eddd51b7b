/* build.c: see build.h. The Makefile compiles it with ENGINE_SOURCES, a checksum, and again when one of the sources
 * changes. */
#include "daemon/engine/build.h"

const char *lance_build(void)
{
    return ENGINE_SOURCES "-" __VERSION__;
}
