/* threads.cpp: see threads.h.
 *
 * A fiber is switched to and from by hand (x86-64) or with swapcontext, and the address sanitizer is told. The order in
 * which the threads of a block run is forward, backward or shuffled: LANCED_EMULATION_ORDER=forward|backward|NUMBER,
 * the number being the seed. A kernel that lacks a barrier gives different results in different orders.
 *
 * In a thread sanitizer build every fiber is a thread to the sanitizer, ordered with others by barriers alone: it
 * reports two threads of a block that touch the same memory, shared or the device's, with no barrier between them. The
 * emulation itself is compiled without the sanitizer (races.h) and so stays out of its sight. */
#include "threads.h"

#include "accesses.h"
#include "races.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ADDRESS_SANITIZER 1
#endif
#endif
#ifdef WITH_ADDRESS_SANITIZER
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace {

enum { WARP = 32, EXCHANGE_BYTES = EMULATED_EXCHANGE_BYTES, STACK_BYTES = 256 << 10, MAX_THREADS = 1024 };

#if defined(__x86_64__)
/* Saves the callee-saved registers on the stack, stores its address in *from, and continues on the stack `to`. */
extern "C" void emulated_switch(void **from, void *to);
__asm__(".text\n"
        ".type emulated_switch, @function\n"
        "emulated_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
        "    ret\n"
        ".size emulated_switch, . - emulated_switch\n");
#endif

/* One thread of control with its stack. */
struct Context {
#if defined(__x86_64__)
    void *top = nullptr;
#else
    ucontext_t context;
#endif
    void *sanitizer = nullptr; /* the sanitizer's own idea of this stack */
    void *racer = nullptr;     /* the thread sanitizer's */
    const void *bottom = nullptr;
    size_t bytes = 0;
};

void switch_context(Context &from, Context &to, bool from_ends)
{
#ifdef WITH_ADDRESS_SANITIZER
    __sanitizer_start_switch_fiber(from_ends ? nullptr : &from.sanitizer, to.bottom, to.bytes);
#else
    (void)from_ends;
#endif
    races_switch(to.racer);
#if defined(__x86_64__)
    emulated_switch(&from.top, to.top);
#else
    swapcontext(&from.context, &to.context);
#endif
#ifdef WITH_ADDRESS_SANITIZER
    __sanitizer_finish_switch_fiber(from.sanitizer, &to.bottom, &to.bytes);
#endif
}

enum class Waiting { no, for_warp, for_block, ended };

struct Copy { /* a copy_async that has not been waited for */
    void *to;
    const void *from;
    size_t bytes;
    bool valid;
    unsigned group;
};

/* What the lanes of a warp showed each other, until all have looked. */
struct Shown {
    alignas(16) unsigned char of_lane[WARP][EXCHANGE_BYTES];
    unsigned readers;
};

struct Fiber {
    Context context;
    std::unique_ptr<char[]> stack;
    uint3 index;
    Waiting waiting;
    unsigned lanes; /* that it waits for */
    unsigned meetings; /* of its warp, so far */
    alignas(16) unsigned char showing[EXCHANGE_BYTES];
    size_t showing_bytes;
    Shown *shown;             /* of its last exchange, or nullptr */
    std::vector<Copy> copies; /* not made yet, oldest first */
    unsigned copy_group;      /* number of the group that is being filled */
};

struct Block {
    const char *kernel;
    const std::function<void()> *body;
    unsigned threads;
    std::vector<Fiber> fibers{MAX_THREADS};
    std::vector<Shown *> unused; /* Shown that nobody reads */
    void *dynamic_shared;
    unsigned block_votes, block_vote_result; /* of __syncthreads_count and its like */
    unsigned current;
    unsigned barriers; /* passed so far */
    Context scheduler;
    /* Where threads meet, for the thread sanitizer. Two of each: some may already wait at the next barrier while others
     * have not yet left this one. */
    char begin, end, barrier[2], warp[MAX_THREADS / WARP][2];

    ~Block()
    {
        for (Fiber &fiber : fibers)
            if (fiber.shown && !--fiber.shown->readers)
                delete fiber.shown;
        for (Shown *shown : unused)
            delete shown;
        free(dynamic_shared);
    }
} block;

[[noreturn]] void give_up(const char *what)
{
    fprintf(stderr, "emulated %s, block (%u, %u, %u), thread %u: %s\n", block.kernel, blockIdx.x, blockIdx.y,
            blockIdx.z, block.current, what);
    abort();
}

void yield()
{
    switch_context(block.fibers[block.current].context, block.scheduler, false);
}

/* The first thing on a fiber's stack, again for every block. */
void fiber_main()
{
#ifdef WITH_ADDRESS_SANITIZER
    __sanitizer_finish_switch_fiber(nullptr, &block.scheduler.bottom, &block.scheduler.bytes);
#endif
    races_leave(&block.begin);
    (*block.body)();
    races_arrive(&block.end);
    block.fibers[block.current].waiting = Waiting::ended;
    switch_context(block.fibers[block.current].context, block.scheduler, true);
    abort();
}

void start_fiber(Fiber &fiber)
{
    if (!fiber.stack)
        fiber.stack.reset(new char[STACK_BYTES]);
    fiber.context.bottom = fiber.stack.get();
    fiber.context.bytes = STACK_BYTES;
#if defined(__x86_64__)
    uintptr_t top = (reinterpret_cast<uintptr_t>(fiber.stack.get()) + STACK_BYTES) & ~static_cast<uintptr_t>(15);
    void **slot = reinterpret_cast<void **>(top) - 8; /* 6 registers, the return address, and none above it */
    memset(slot, 0, 8 * sizeof *slot);
    slot[6] = reinterpret_cast<void *>(fiber_main);
    fiber.context.top = slot;
#else
    getcontext(&fiber.context.context);
    fiber.context.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.context.uc_stack.ss_size = STACK_BYTES;
    fiber.context.context.uc_link = nullptr;
    makecontext(&fiber.context.context, fiber_main, 0);
#endif
    if (!fiber.context.racer)
        fiber.context.racer = races_new_thread();
    fiber.waiting = Waiting::no;
    fiber.meetings = 0;
    fiber.copies.clear();
    fiber.copy_group = 0;
}

void resume(unsigned thread)
{
    block.current = thread;
    accesses_thread(thread);
    threadIdx = block.fibers[thread].index;
    switch_context(block.scheduler, block.fibers[thread].context, false);
}

/* The order in which the threads get their turns. */
const std::vector<unsigned> &turns(unsigned threads)
{
    static std::vector<unsigned> order;
    static const char *wish = getenv("LANCED_EMULATION_ORDER");
    static std::mt19937 random(wish ? static_cast<unsigned>(strtoul(wish, nullptr, 10)) : 0u);
    const bool backward = wish && !strcmp(wish, "backward"), shuffled = wish && wish[0] >= '0' && wish[0] <= '9';
    if (order.size() != threads) {
        order.resize(threads);
        for (unsigned i = 0; i < threads; i++)
            order[i] = backward ? threads - 1 - i : i;
    }
    if (shuffled)
        std::shuffle(order.begin(), order.end(), random);
    return order;
}

void release_block_barrier()
{
    for (unsigned i = 0; i < block.threads; i++)
        if (block.fibers[i].waiting == Waiting::for_block)
            block.fibers[i].waiting = Waiting::no;
    block.block_vote_result = block.block_votes;
    block.block_votes = 0;
    block.barriers++;
    accesses_block_met();
}

bool warp_complete(unsigned warp, unsigned lanes)
{
    for (unsigned lane = 0; lane < WARP; lane++) {
        const unsigned thread = warp * WARP + lane;
        if (!(lanes >> lane & 1) || thread >= block.threads)
            continue;
        const Fiber &fiber = block.fibers[thread];
        if (fiber.waiting == Waiting::ended)
            continue;
        if (fiber.waiting != Waiting::for_warp || fiber.lanes != lanes)
            return false;
    }
    return true;
}

void forget_shown(Fiber &fiber)
{
    if (fiber.shown && !--fiber.shown->readers)
        block.unused.push_back(fiber.shown);
    fiber.shown = nullptr;
}

/* All of `lanes` are there: what they show becomes visible to them, and they go on. */
void release_warp(unsigned warp, unsigned lanes)
{
    const RacesUnseen unseen;
    Shown *shown = nullptr;
    for (unsigned lane = 0; lane < WARP; lane++) {
        const unsigned thread = warp * WARP + lane;
        if (!(lanes >> lane & 1) || thread >= block.threads || block.fibers[thread].waiting != Waiting::for_warp)
            continue;
        Fiber &fiber = block.fibers[thread];
        fiber.waiting = Waiting::no;
        if (!fiber.showing_bytes)
            continue;
        if (!shown) {
            if (block.unused.empty())
                block.unused.push_back(new Shown);
            shown = block.unused.back();
            block.unused.pop_back();
            shown->readers = 0;
        }
        memcpy(shown->of_lane[lane], fiber.showing, fiber.showing_bytes);
        fiber.shown = shown;
        shown->readers++;
    }
}

/* With `orders` the lanes also see each other's memory afterwards. */
void wait_for_warp(unsigned lanes, const void *showing, size_t bytes, bool orders)
{
    const unsigned thread = block.current;
    if (!(lanes >> thread % WARP & 1))
        give_up("a warp function is called by a lane that its mask leaves out");
    Fiber &fiber = block.fibers[thread];
    forget_shown(fiber);
    if (bytes)
        memcpy(fiber.showing, showing, bytes);
    fiber.showing_bytes = bytes;
    fiber.waiting = Waiting::for_warp;
    fiber.lanes = lanes;
    char *meeting = orders ? &block.warp[thread / WARP][fiber.meetings++ % 2] : nullptr;
    if (meeting)
        races_arrive(meeting);
    if (warp_complete(thread / WARP, lanes))
        release_warp(thread / WARP, lanes);
    else
        yield();
    accesses_warp_met(thread);
    if (meeting)
        races_leave(meeting);
}

/* Lanes of a warp may go on without one that ended. */
void release_warp_of(unsigned thread)
{
    const unsigned warp = thread / WARP;
    for (unsigned lane = 0; lane < WARP && warp * WARP + lane < block.threads; lane++) {
        const Fiber &fiber = block.fibers[warp * WARP + lane];
        if (fiber.waiting == Waiting::for_warp && warp_complete(warp, fiber.lanes))
            release_warp(warp, fiber.lanes);
    }
}

} // namespace

void emulated_run_block(const char *kernel, dim3 grid, dim3 size, uint3 number, size_t shared_bytes,
                        const std::function<void()> &body)
{
    block.kernel = kernel;
    block.body = &body;
    block.threads = size.x * size.y * size.z;
    block.block_votes = block.block_vote_result = 0;
    block.barriers = 0;
    gridDim = grid;
    blockDim = size;
    blockIdx = number;
    /* exactly as long as asked for, so that the address sanitizer sees a step past it; NaN until written */
    free(block.dynamic_shared);
    block.dynamic_shared = nullptr;
    if (shared_bytes && posix_memalign(&block.dynamic_shared, 128, shared_bytes))
        abort();
    if (shared_bytes)
        memset(block.dynamic_shared, 0xff, shared_bytes);
    for (unsigned i = 0; i < block.threads; i++) {
        block.fibers[i].index = uint3{i % size.x, i / size.x % size.y, i / (size.x * size.y)};
        start_fiber(block.fibers[i]);
    }
    accesses_block(block.dynamic_shared, shared_bytes);
    block.scheduler.racer = races_this_thread();
    races_arrive(&block.begin);
    for (unsigned ended = 0; ended < block.threads;) {
        bool moved = false;
        for (unsigned thread : turns(block.threads)) {
            Fiber &fiber = block.fibers[thread];
            if (fiber.waiting != Waiting::no)
                continue;
            moved = true;
            resume(thread);
            if (fiber.waiting == Waiting::ended) {
                ended++;
                release_warp_of(thread);
            }
        }
        if (moved)
            continue;
        for (unsigned i = 0; i < block.threads; i++)
            if (block.fibers[i].waiting == Waiting::for_warp) {
                block.current = i;
                give_up("a warp function waits for lanes that never come");
            }
        release_block_barrier();
    }
    races_leave(&block.end);
    accesses_block_ends();
}

void *emulated_dynamic_shared()
{
    return block.dynamic_shared;
}

void __syncthreads()
{
    char *barrier = &block.barrier[block.barriers % 2];
    races_arrive(barrier);
    block.fibers[block.current].waiting = Waiting::for_block;
    yield();
    races_leave(barrier);
}

int __syncthreads_count(int predicate)
{
    block.block_votes += predicate != 0;
    __syncthreads();
    return static_cast<int>(block.block_vote_result);
}

int __syncthreads_or(int predicate)
{
    return __syncthreads_count(predicate) != 0;
}

int __syncthreads_and(int predicate)
{
    return __syncthreads_count(!predicate) == 0;
}

void __syncwarp(unsigned lanes)
{
    wait_for_warp(lanes, nullptr, 0, true);
}

const unsigned char *emulated_exchange(unsigned lanes, const void *mine, size_t bytes)
{
    if (!bytes || bytes > EXCHANGE_BYTES)
        give_up("the emulation cannot exchange so much between lanes");
    wait_for_warp(lanes, mine, bytes, false);
    return block.fibers[block.current].shown->of_lane[0];
}

unsigned emulated_lane()
{
    return block.current % WARP;
}

/* ---- asynchronous copies: made only when they are waited for, as late as the device may make them ---- */
void emulated_copy_async(void *to, const void *from, size_t bytes, bool valid)
{
    if (reinterpret_cast<uintptr_t>(to) % bytes || reinterpret_cast<uintptr_t>(from) % bytes)
        give_up("an asynchronous copy is not aligned to its size");
    accesses_copy(to, from, bytes, valid, __builtin_return_address(0));
    Fiber &fiber = block.fibers[block.current];
    fiber.copies.push_back(Copy{to, from, bytes, valid, fiber.copy_group});
}

void emulated_copy_async_commit()
{
    block.fibers[block.current].copy_group++;
}

void emulated_copy_async_wait(unsigned pending)
{
    Fiber &fiber = block.fibers[block.current];
    size_t made = 0;
    for (; made < fiber.copies.size() && fiber.copies[made].group + pending < fiber.copy_group; made++) {
        const Copy &copy = fiber.copies[made];
        if (copy.valid)
            memcpy(copy.to, copy.from, copy.bytes);
        else
            memset(copy.to, 0, copy.bytes);
    }
    fiber.copies.erase(fiber.copies.begin(), fiber.copies.begin() + static_cast<std::ptrdiff_t>(made));
}
