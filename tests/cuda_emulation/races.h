/* races.h: what the emulation tells the thread sanitizer: which fiber runs, and where threads of a block
 * meet. Nothing in other builds.
 *
 * EMULATION_FINDS_RACES is defined when the kernels, but not the emulation, are compiled with the sanitizer. */
#ifndef LANCE_EMULATION_RACES_H
#define LANCE_EMULATION_RACES_H

#include <stddef.h>

#ifdef EMULATION_FINDS_RACES
#include <sanitizer/tsan_interface.h>

extern "C" {
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
void __tsan_read_range(void *address, unsigned long bytes);
}

/* The running fiber comes to a place where threads meet; it goes on from there, behind all who came. */
static inline void races_arrive(void *place) { __tsan_release(place); }
static inline void races_leave(void *place) { __tsan_acquire(place); }

static inline void *races_new_thread() { return __tsan_create_fiber(0); }
static inline void *races_this_thread() { return __tsan_get_current_fiber(); }
static inline void races_switch(void *thread) { __tsan_switch_to_fiber(thread, __tsan_switch_to_fiber_no_sync); }

/* The kernel reads memory through the emulation. */
static inline void races_read(const void *memory, size_t bytes)
{
    __tsan_read_range(const_cast<void *>(memory), bytes);
}

/* While one of these is there, the emulation's own accesses are not the kernel's. */
struct RacesUnseen {
    RacesUnseen()
    {
        AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    }
    ~RacesUnseen()
    {
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
        AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    }
    RacesUnseen(const RacesUnseen &) = delete;
    RacesUnseen &operator=(const RacesUnseen &) = delete;
};
#else
static inline void races_arrive(void *) {}
static inline void races_leave(void *) {}
static inline void *races_new_thread() { return nullptr; }
static inline void *races_this_thread() { return nullptr; }
static inline void races_switch(void *) {}
static inline void races_read(const void *, size_t) {}
struct RacesUnseen {
    RacesUnseen() {}
};
#endif

#endif
