/* accesses.cpp: what the kernels of the emulated card ask of memory, counted as a card would: see accesses.h.
 *
 * Lanes of a warp that come to the same instruction, as often since they last met, are one request. Of a request to the
 * card's memory the sectors of 32 bytes are counted; of one to shared memory the turns that its 32 banks of 4 bytes
 * take: accesses of 8 and of 16 bytes are made in two and four parts of neighbouring lanes, each matrix of ldmatrix in
 * one. Beside each stands the least that would do. What is neither, the threads' own stacks, say, is not counted.
 *
 * LANCED_EMULATION_ACCESSES=FILE: the counts are written there as JSON when the program ends. Of each kernel and grid,
 * the blocks of the first launch are looked at: all up to ALL_BLOCKS, otherwise the first, the middle and the last. */
#include "accesses.h"

#ifdef EMULATION_RECORDS_ACCESSES

#include <dlfcn.h>
#include <stdio.h>

#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

/* The plugin's own variables: static shared memory is among them. */
extern "C" __attribute__((visibility("hidden"))) char __bss_start[], _end[];

namespace {

enum { ALL_BLOCKS = 4, WARP = 32, WARPS = 32, SECTOR = 32, BANKS = 32, WORD = 4, LARGEST = 16 };
enum Way { READ, WRITE, COPY, MATRIX }; /* COPY: the asynchronous one */
const char *const WAYS[] = {"read", "write", "copy", "matrix"};

struct Access {
    uintptr_t from; /* the instruction */
    uintptr_t at;
    unsigned meeting; /* of the warp's lanes, before it */
    unsigned turn;    /* of this lane at this instruction since then */
    unsigned char lane, bytes;
    bool shared;
    Way way;
};

/* Of one instruction. */
struct Count {
    unsigned long requests, lanes, taken, least; /* sectors, or turns of the banks */
    unsigned bytes;
};

struct Launch {
    const void *kernel;
    dim3 grid, block;
    size_t shared_bytes;
    bool operator<(const Launch &other) const { return tied() < other.tied(); }

private:
    std::tuple<const void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, size_t> tied() const
    {
        return {kernel, grid.x, grid.y, grid.z, block.x, block.y, block.z, shared_bytes};
    }
};

struct Record {
    std::string name;
    unsigned long blocks;
    std::map<std::tuple<uintptr_t, bool, Way>, Count> counts;
    unsigned long bytes[2]; /* of the card's memory that a block read, wrote: each once */
};

struct Recorder {
    std::map<Launch, Record> records;
    std::map<uintptr_t, size_t> memory;
    Record *record; /* of the launch that runs; NULL: not looked at */
    unsigned long blocks;

    bool in_block, busy;
    uintptr_t shared, shared_end;
    unsigned thread, meetings[WARP * WARPS];
    std::vector<Access> of_warp[WARPS]; /* since all threads met */
    std::unordered_map<uintptr_t, uint32_t> touched[2]; /* sectors read and written, and which bytes of them */
} recorder;

const char *file_wanted()
{
    static const char *const path = getenv("LANCED_EMULATION_ACCESSES");
    return path;
}

bool is_shared(uintptr_t at)
{
    return (at >= recorder.shared && at < recorder.shared_end) ||
           (at >= reinterpret_cast<uintptr_t>(__bss_start) && at < reinterpret_cast<uintptr_t>(_end));
}

/* Variables of the emulation that kernels read as they would registers. */
bool is_register(uintptr_t at)
{
    const struct {
        const void *first;
        size_t bytes;
    } all[] = {{&threadIdx, sizeof threadIdx}, {&blockIdx, sizeof blockIdx}, {&blockDim, sizeof blockDim},
               {&gridDim, sizeof gridDim}};
    for (const auto &one : all)
        if (at - reinterpret_cast<uintptr_t>(one.first) < one.bytes)
            return true;
    return false;
}

bool is_cards(uintptr_t at)
{
    const auto after = recorder.memory.upper_bound(at);
    return after != recorder.memory.begin() && at - std::prev(after)->first < std::prev(after)->second;
}

void note(Way way, uintptr_t at, size_t bytes, const void *caller)
{
    const bool shared = is_shared(at);
    if (shared ? is_register(at) : !is_cards(at))
        return;
    for (size_t done = 0; done < bytes; done += LARGEST)
        recorder.of_warp[recorder.thread / WARP].push_back(
            {reinterpret_cast<uintptr_t>(caller), at + done, recorder.meetings[recorder.thread], 0,
             static_cast<unsigned char>(recorder.thread % WARP),
             static_cast<unsigned char>(std::min<size_t>(bytes - done, LARGEST)), shared, way});
}

/* The sectors of a request, and the fewest that its bytes have room in. */
void count_sectors(const Access *first, const Access *end, Count *count)
{
    const int writes = first->way == WRITE;
    std::map<uintptr_t, uint32_t> sectors;
    for (const Access *access = first; access < end; access++)
        for (uintptr_t at = access->at; at < access->at + access->bytes; at++)
            sectors[at / SECTOR] |= 1u << at % SECTOR;
    int bytes = 0;
    for (const auto &[sector, of_it] : sectors) {
        bytes += __builtin_popcount(of_it);
        recorder.touched[writes][sector] |= of_it;
    }
    count->taken += sectors.size();
    count->least += static_cast<unsigned long>((bytes + SECTOR - 1) / SECTOR);
}

/* The turns that the banks take for a request, and how many its parts are. */
void count_turns(const Access *first, const Access *end, Count *count)
{
    const unsigned lanes = WARP / std::max(1, first->bytes / WORD);
    for (unsigned part = 0; part < WARP; part += lanes) {
        std::set<uintptr_t> words[BANKS];
        size_t turns = 0;
        for (const Access *access = first; access < end; access++)
            for (uintptr_t word = access->at / WORD;
                 access->lane - part < lanes && word <= (access->at + access->bytes - 1) / WORD; word++) {
                words[word % BANKS].insert(word);
                turns = std::max(turns, words[word % BANKS].size());
            }
        count->taken += turns;
        count->least += turns > 0;
    }
}

bool same_request(const Access &a, const Access &b)
{
    return a.meeting == b.meeting && a.from == b.from && a.way == b.way && a.shared == b.shared && a.turn == b.turn;
}

/* Numbers the turns of each lane at each instruction, so that sorting brings the lanes of a request together. */
void sort_requests(std::vector<Access> &all)
{
    const auto place = [](const Access &a) { return std::tie(a.meeting, a.from, a.way, a.shared); };
    std::stable_sort(all.begin(), all.end(), [&](const Access &a, const Access &b) {
        return std::tuple_cat(place(a), std::tie(a.lane)) < std::tuple_cat(place(b), std::tie(b.lane));
    });
    for (size_t i = 1; i < all.size(); i++)
        if (place(all[i]) == place(all[i - 1]) && all[i].lane == all[i - 1].lane)
            all[i].turn = all[i - 1].turn + 1;
    std::sort(all.begin(), all.end(), [&](const Access &a, const Access &b) {
        return std::tuple_cat(place(a), std::tie(a.turn, a.lane)) < std::tuple_cat(place(b), std::tie(b.turn, b.lane));
    });
}

void count_requests(std::vector<Access> &all)
{
    sort_requests(all);
    for (size_t first = 0, end; first < all.size(); first = end) {
        for (end = first + 1; end < all.size() && same_request(all[first], all[end]);)
            end++;
        const Access &one = all[first];
        Count &count = recorder.record->counts[{one.from, one.shared, one.way}];
        count.requests++;
        count.lanes += end - first;
        count.bytes = one.bytes;
        (one.shared ? count_turns : count_sectors)(&all[first], &all[0] + end, &count);
    }
    all.clear();
}

uintptr_t in_plugin(const void *address)
{
    static Dl_info here;
    if (!here.dli_fbase)
        dladdr(reinterpret_cast<const void *>(&accesses_recorded), &here);
    return reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(here.dli_fbase);
}

void write_record(FILE *file, const Launch &launch, const Record &record)
{
    fprintf(file, "{\"kernel\": %lu, \"name\": \"%s\", \"grid\": [%u, %u, %u], \"threads\": %u, \"shared_bytes\": %zu, "
                  "\"blocks\": %lu, \"bytes_read\": %lu, \"bytes_written\": %lu, \"instructions\": [",
            in_plugin(launch.kernel), record.name.c_str(), launch.grid.x, launch.grid.y, launch.grid.z,
            launch.block.x * launch.block.y * launch.block.z, launch.shared_bytes, record.blocks, record.bytes[0],
            record.bytes[1]);
    const char *between = "";
    for (const auto &[where, count] : record.counts) {
        const auto &[from, shared, way] = where;
        fprintf(file, "%s\n  {\"at\": %lu, \"shared\": %s, \"way\": \"%s\", \"bytes\": %u, \"requests\": %lu, "
                      "\"lanes\": %lu, \"taken\": %lu, \"least\": %lu}",
                between, in_plugin(reinterpret_cast<const void *>(from - 1)), shared ? "true" : "false", WAYS[way],
                count.bytes, count.requests, count.lanes, count.taken, count.least);
        between = ",";
    }
    fprintf(file, "]}");
}

struct Writer {
    ~Writer()
    {
        FILE *file = file_wanted() ? fopen(file_wanted(), "w") : nullptr;
        if (!file)
            return;
        recorder.busy = true;
        const char *between = "[";
        for (const auto &[launch, record] : recorder.records) {
            fprintf(file, "%s", between);
            write_record(file, launch, record);
            between = ",\n";
        }
        fprintf(file, "%s]\n", recorder.records.empty() ? "[" : "");
        fclose(file);
    }
} at_the_end;

} // namespace

bool accesses_recorded()
{
    return file_wanted() != nullptr;
}

void accesses_launch(const void *kernel, const char *name, dim3 grid, dim3 block, size_t shared_bytes)
{
    if (!file_wanted())
        return;
    const auto [record, is_new] =
        recorder.records.insert({{kernel, grid, block, shared_bytes}, {name, 0, {}, {0, 0}}});
    recorder.record = is_new ? &record->second : nullptr;
    recorder.blocks = static_cast<unsigned long>(grid.x) * grid.y * grid.z;
}

bool accesses_wanted(unsigned long number)
{
    return !file_wanted() || (recorder.record && (recorder.blocks <= ALL_BLOCKS || number == 0 ||
                                                  number == recorder.blocks / 2 || number == recorder.blocks - 1));
}

void accesses_block(const void *shared, size_t shared_bytes)
{
    recorder.in_block = file_wanted() != nullptr;
    recorder.shared = reinterpret_cast<uintptr_t>(shared);
    recorder.shared_end = recorder.shared + shared_bytes;
    memset(recorder.meetings, 0, sizeof recorder.meetings);
}

void accesses_block_ends()
{
    if (!recorder.in_block)
        return;
    accesses_block_met();
    recorder.in_block = false;
    recorder.record->blocks++;
    for (int writes = 0; writes < 2; writes++) {
        for (const auto &[sector, of_it] : recorder.touched[writes])
            recorder.record->bytes[writes] += static_cast<unsigned long>(__builtin_popcount(of_it));
        recorder.touched[writes].clear();
    }
}

void accesses_thread(unsigned thread)
{
    recorder.thread = thread;
}

void accesses_warp_met(unsigned thread)
{
    recorder.meetings[thread]++;
}

void accesses_block_met()
{
    if (!recorder.in_block)
        return;
    recorder.busy = true;
    for (std::vector<Access> &all : recorder.of_warp)
        count_requests(all);
    recorder.busy = false;
}

/* Code that kernels and the emulation share, a vector's, say, may be the kernels' copy of it: an access of the
 * recorder's own is none. */
static void look(Way way, const void *at, size_t bytes, const void *caller)
{
    if (!recorder.in_block || recorder.busy)
        return;
    recorder.busy = true;
    note(way, reinterpret_cast<uintptr_t>(at), bytes, caller);
    recorder.busy = false;
}

void accesses_copy(const void *shared, const void *global, size_t bytes, bool valid, const void *caller)
{
    if (valid)
        look(COPY, global, bytes, caller);
    look(COPY, shared, bytes, caller);
}

void accesses_matrix_row(const void *shared, const void *caller)
{
    look(MATRIX, shared, LARGEST, caller);
}

void accesses_memory(const void *memory, size_t bytes)
{
    recorder.memory[reinterpret_cast<uintptr_t>(memory)] = bytes;
}

void accesses_memory_gone(const void *memory)
{
    recorder.memory.erase(reinterpret_cast<uintptr_t>(memory));
}

/* ---- what a compiler calls for the thread sanitizer ---- */
extern "C" {
#define NOTE_OF(bytes) \
    void __tsan_read##bytes(void *at) { look(READ, at, bytes, __builtin_return_address(0)); } \
    void __tsan_write##bytes(void *at) { look(WRITE, at, bytes, __builtin_return_address(0)); } \
    void __tsan_unaligned_read##bytes(void *at) { look(READ, at, bytes, __builtin_return_address(0)); } \
    void __tsan_unaligned_write##bytes(void *at) { look(WRITE, at, bytes, __builtin_return_address(0)); }
NOTE_OF(1)
NOTE_OF(2)
NOTE_OF(4)
NOTE_OF(8)
NOTE_OF(16)
void __tsan_read_range(void *at, unsigned long bytes) { look(READ, at, bytes, __builtin_return_address(0)); }
void __tsan_write_range(void *at, unsigned long bytes) { look(WRITE, at, bytes, __builtin_return_address(0)); }
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
/* Of the program's own code, not of kernels. */
#define ATOMICS_OF(bits, type) \
    type __tsan_atomic##bits##_load(const volatile type *at, int) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); } \
    void __tsan_atomic##bits##_store(volatile type *at, type value, int) \
    { \
        __atomic_store_n(at, value, __ATOMIC_SEQ_CST); \
    } \
    type __tsan_atomic##bits##_exchange(volatile type *at, type value, int) \
    { \
        return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST); \
    } \
    type __tsan_atomic##bits##_fetch_add(volatile type *at, type value, int) \
    { \
        return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST); \
    }
ATOMICS_OF(8, unsigned char)
ATOMICS_OF(32, unsigned)
ATOMICS_OF(64, unsigned long)
}

#endif
