/* build.h: which engine this is. */
#ifndef LANCE_BUILD_H
#define LANCE_BUILD_H

/* Names the sources of engine, kernels and protocol and the compiler they were built with: the same name, the same
 * bytes. */
const char *lance_build(void);

#endif
