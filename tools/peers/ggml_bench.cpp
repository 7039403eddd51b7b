// Times one matrix product of ggml (llama.cpp) on the CPU for tools/bench_peers.py:
//   y[rows, out] = x[rows, in] W[out, in]^T.
// usage: ggml_bench THREADS IN OUT ROWS f32|q4_0 [repack]; prints the median milliseconds. As many copies of W as no
// cache holds are multiplied in turn. `repack` lets ggml keep W in the order that its quickest kernel here wants.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

// The memory type in which this backend keeps weights for its quickest kernels, or its usual one.
static ggml_backend_buffer_type_t weights_memory(ggml_backend_t cpu, bool repack)
{
    ggml_backend_dev_t device = ggml_backend_get_device(cpu);
    auto extra = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts"));
    ggml_backend_buffer_type_t *list = repack && extra ? extra(device) : nullptr;
    return list && *list ? *list : ggml_backend_cpu_buffer_type();
}

static std::vector<float> random_floats(size_t n, float size)
{
    std::mt19937 generator(1);
    std::normal_distribution<float> normal(0.0f, size);
    std::vector<float> values(n);
    for (float &value : values)
        value = normal(generator);
    return values;
}

static double median_ms(ggml_backend_t cpu, ggml_cgraph *graph, size_t products)
{
    using clock = std::chrono::steady_clock;
    std::vector<double> times;
    ggml_backend_graph_compute(cpu, graph);
    for (const auto start = clock::now(); times.size() < 3 || clock::now() - start < std::chrono::milliseconds(500);) {
        const auto began = clock::now();
        ggml_backend_graph_compute(cpu, graph);
        times.push_back(std::chrono::duration<double, std::milli>(clock::now() - began).count() /
                        static_cast<double>(products));
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

int main(int argc, char **argv)
{
    if (argc < 6) {
        fprintf(stderr, "usage: ggml_bench THREADS IN OUT ROWS f32|q4_0 [repack]\n");
        return 2;
    }
#if defined(__x86_64__) && defined(__linux__)
    syscall(SYS_arch_prctl, 0x1023 /* ask for the permission to use */, 18 /* AMX's tiles, which ggml does not */);
#endif
    const int64_t in = atoll(argv[2]), out = atoll(argv[3]), rows = atoll(argv[4]);
    const ggml_type type = !strcmp(argv[5], "q4_0") ? GGML_TYPE_Q4_0 : GGML_TYPE_F32;
    const size_t bytes = ggml_row_size(type, in) * static_cast<size_t>(out), enough = size_t{256} << 20;
    ggml_backend_t cpu = ggml_backend_cpu_init();
    ggml_backend_cpu_set_n_threads(cpu, atoi(argv[1]));

    const ggml_init_params params = {size_t{64} << 20, nullptr, true};
    ggml_context *weights_context = ggml_init(params), *context = ggml_init(params);
    std::vector<ggml_tensor *> weights(std::clamp<size_t>(enough / bytes, 1, 64));
    for (ggml_tensor *&w : weights)
        w = ggml_new_tensor_2d(weights_context, type, in, out);
    ggml_backend_buffer_t memory =
        ggml_backend_alloc_ctx_tensors_from_buft(weights_context, weights_memory(cpu, argc > 6));
    const std::vector<float> values = random_floats(static_cast<size_t>(in * out), 0.02f);
    std::vector<char> data(bytes);
    if (type == GGML_TYPE_F32)
        memcpy(data.data(), values.data(), bytes);
    else
        ggml_quantize_chunk(type, values.data(), data.data(), 0, out, in, nullptr);
    for (ggml_tensor *w : weights)
        ggml_backend_tensor_set(w, data.data(), 0, bytes);

    ggml_tensor *x = ggml_new_tensor_2d(context, GGML_TYPE_F32, in, rows);
    ggml_backend_buffer_t x_memory = ggml_backend_alloc_buffer(cpu, ggml_nbytes(x) + 4096);
    ggml_tallocr allocator = ggml_tallocr_new(x_memory);
    ggml_tallocr_alloc(&allocator, x);
    const std::vector<float> x_values = random_floats(static_cast<size_t>(in * rows), 1.0f);
    ggml_backend_tensor_set(x, x_values.data(), 0, x_values.size() * sizeof(float));
    ggml_cgraph *graph = ggml_new_graph(context);
    for (ggml_tensor *w : weights)
        ggml_build_forward_expand(graph, ggml_mul_mat(context, w, x));
    ggml_gallocr_t graph_memory = ggml_gallocr_new(ggml_backend_get_default_buffer_type(cpu));
    ggml_gallocr_alloc_graph(graph_memory, graph);
    printf("%.4f\n", median_ms(cpu, graph, weights.size()));

    ggml_gallocr_free(graph_memory);
    ggml_backend_buffer_free(x_memory);
    ggml_backend_buffer_free(memory);
    ggml_free(context);
    ggml_free(weights_context);
    ggml_backend_free(cpu);
    return 0;
}
