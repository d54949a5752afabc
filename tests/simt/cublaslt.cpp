// cuBLASLt, as far as hbt calls it: one matrix product, strict about what the real one refuses or leaves undefined. Built
// twice, as SIMT_MAJOR 12 and 13; the latter works with drivers for CUDA 13 only.
//
// An algorithm remembers what it was chosen for: types, transposes, epilogue, alignments and workspace. Using it for
// anything else is refused, as the real library may do; for another size, if the seed says so. Algorithm n adds up n + 1
// parts of a sum. With SIMT_BLAS_SEED=N, algorithm N mod 8 is the fastest by the device's clock, and those after it follow.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "streams.h"

using namespace simt;

extern "C" int cuDriverGetVersion(int* out);

namespace {

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, ALLOC_FAILED = 3, BAD_VALUE = 7, EXECUTION_FAILED = 13, UNSUPPORTED = 15 };
enum Type : u32 { F32 = 0, BF16 = 14 };
enum Epilogue : u32 { DEFAULT = 1, BIAS = 4 };
enum Order : u32 { COLUMNS = 0, ROWS = 1 };
constexpr u32 COMPUTE_32F = 68, COMPUTE_32F_PEDANTIC = 69;

struct Handle {};
struct Desc {
    u32 compute, scale;
    int transposed[2] = {0, 0};
    u32 epilogue = DEFAULT;
    u64 bias = 0;
    int bias_type = -1;
};
struct Layout {
    u32 type;
    u32 order = COLUMNS;
    u64 rows, columns;
    int64_t ld;

    size_t element() const { return type == F32 ? 4 : 2; }
    size_t bytes() const {
        const u64 lines = order == COLUMNS ? columns : rows, length = order == COLUMNS ? rows : columns;
        return ((lines - 1) * u64(ld) + length) * element();
    }
    // The largest power of 2 up to 16 that all lines start at a multiple of, in bytes.
    u32 alignment() const {
        const size_t step = size_t(ld) * element();
        return u32(std::min<size_t>(16, step & ~(step - 1)));
    }
};
struct Preference {
    u64 workspace = 0;
    u32 alignment[4] = {256, 256, 256, 256};
};
constexpr u32 N_ALGORITHMS = 8;
// What lies in the 64 bytes of cublasLtMatmulAlgo_t.
struct Algo {
    u32 magic, id;
    u8 types[3], transposed;
    u32 epilogue;
    u16 pointer_alignment[4];
    u8 line_alignment[4];
    // Size of the product.
    u32 mnk[3];
    u64 workspace;
};
static_assert(sizeof(Algo) <= 64, "as large as the real one at most");
constexpr u32 MAGIC = 0x51317A16;

struct HeuristicResult {
    u64 algo[8];
    size_t workspace_size;
    int state;
    float waves;
    int reserved[4];
};

Status no(Status status, const std::string& why) {
    refuse(LAUNCH_FAILED, "cublasLt: %s", why.c_str());
    return status;
}

std::string shape(const Layout& l) {
    return text("%llu x %llu, ld %lld, %s, %s-major", (unsigned long long)l.rows, (unsigned long long)l.columns,
                (long long)l.ld, l.type == F32 ? "f32" : "bf16", l.order == COLUMNS ? "column" : "row");
}

// What product it is, and whether the real library has it.
Status understand(const Desc& desc, const Layout* const (&layouts)[4], u64 (&mnk)[3]) {
    for (const Layout* l : layouts) {
        if (l->type != F32 && l->type != BF16) return no(UNSUPPORTED, "only f32 and bf16 matrices");
        if (l->rows == 0 || l->columns == 0) return no(BAD_VALUE, "an empty matrix: " + shape(*l));
        if (l->order > ROWS) return no(UNSUPPORTED, "only row- and column-major matrices");
        if (u64(l->ld) < (l->order == COLUMNS ? l->rows : l->columns))
            return no(BAD_VALUE, "a leading dimension below its line: " + shape(*l));
    }
    const Layout &a = *layouts[0], &b = *layouts[1], &c = *layouts[2], &d = *layouts[3];
    const u64 m = desc.transposed[0] ? a.columns : a.rows, k = desc.transposed[0] ? a.rows : a.columns;
    const u64 k_of_b = desc.transposed[1] ? b.columns : b.rows, n = desc.transposed[1] ? b.rows : b.columns;
    if (k != k_of_b || d.rows != m || d.columns != n || c.rows != m || c.columns != n) {
        return no(BAD_VALUE, "sizes do not fit: A " + shape(a) + (desc.transposed[0] ? " transposed" : "") + "; B " +
                                 shape(b) + (desc.transposed[1] ? " transposed" : "") + "; C " + shape(c) + "; D " +
                                 shape(d));
    }
    if (desc.compute != COMPUTE_32F && desc.compute != COMPUTE_32F_PEDANTIC)
        return no(UNSUPPORTED, "only CUBLAS_COMPUTE_32F");
    if (desc.scale != F32) return no(UNSUPPORTED, "CUBLAS_COMPUTE_32F takes scales in f32");
    if (a.type != b.type || c.type != d.type || (a.type == F32 && d.type == BF16))
        return no(UNSUPPORTED, "no product of these types: A " + shape(a) + "; B " + shape(b) + "; D " + shape(d));
    if (c.order != d.order) return no(UNSUPPORTED, "C and D in different orders");
    if (desc.epilogue != DEFAULT && desc.epilogue != BIAS) return no(UNSUPPORTED, "only the epilogues DEFAULT and BIAS");
    if (desc.epilogue == BIAS) {
        if (!desc.bias || desc.bias % 16) return no(BAD_VALUE, "a bias that is null or not aligned to 16 bytes");
        if (desc.bias_type >= 0 && u32(desc.bias_type) != d.type) return no(UNSUPPORTED, "a bias of another type than D");
        // The real one would read a bias of A's type as one of D's.
        if (desc.bias_type < 0 && a.type != d.type)
            return no(UNSUPPORTED, "a bias whose type nobody says, where A and D have two");
    }
    mnk[0] = m;
    mnk[1] = n;
    mnk[2] = k;
    return SUCCESS;
}

float load_element(const void* base, u32 type, size_t i) {
    if (type == F32) return static_cast<const float*>(base)[i];
    const u32 bits = u32(static_cast<const u16*>(base)[i]) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

void store_element(void* base, u32 type, size_t i, float x) {
    if (type == F32) {
        static_cast<float*>(base)[i] = x;
    } else {
        static_cast<u16*>(base)[i] = u16(pack_bf16x2(x, 0.0f));
    }
}

// A matrix as rows of f32, transposed if asked for.
std::vector<float> unpack(const void* base, const Layout& l, bool transposed, size_t pad) {
    const u64 rows = transposed ? l.columns : l.rows, columns = transposed ? l.rows : l.columns;
    const size_t width = (columns + pad - 1) / pad * pad;
    std::vector<float> out(rows * width, 0.0f);
    // Whether neighbours in a row of `out` are neighbours in memory.
    const bool along = (l.order == ROWS) != transposed;
    for (u64 i = 0; i < (along ? rows : columns); ++i) {
        for (u64 j = 0; j < (along ? columns : rows); ++j) {
            const float x = load_element(base, l.type, i * u64(l.ld) + j);
            out[along ? i * width + j : j * width + i] = x;
        }
    }
    return out;
}

typedef float Eight __attribute__((vector_size(32), aligned(4)));

// Adds to 4 rows by 16 columns; each element is summed over a part of k in order, and then added.
template <int Rows> void tile(float* out, const float* a, const float* b, u64 k, u64 first, u64 last, size_t width) {
    Eight sum[Rows][2] = {};
    for (u64 i = first; i < last; ++i) {
        const Eight b0 = *reinterpret_cast<const Eight*>(b + i * width),
                    b1 = *reinterpret_cast<const Eight*>(b + i * width + 8);
        for (int row = 0; row < Rows; ++row) {
            sum[row][0] += a[u64(row) * k + i] * b0;
            sum[row][1] += a[u64(row) * k + i] * b1;
        }
    }
    for (int row = 0; row < Rows; ++row) {
        *reinterpret_cast<Eight*>(out + u64(row) * width) += sum[row][0];
        *reinterpret_cast<Eight*>(out + u64(row) * width + 8) += sum[row][1];
    }
}

struct Product {
    Desc desc;
    Layout layouts[4];
    u64 mnk[3];
    float alpha, beta;
    u64 pointers[4];

    Code live() const {
        static const char* const names[] = {"A", "B", "C", "D"};
        for (int i = 0; i < 4; ++i) {
            if (i == 2 && beta == 0.0f) continue;
            if (!device_range_valid(pointers[i], layouts[i].bytes())) {
                return refuse(ILLEGAL_ADDRESS, "cublasLtMatmul: %s of %zu bytes starts at %s", names[i], layouts[i].bytes(),
                              describe_address(pointers[i]).c_str());
            }
        }
        if (desc.epilogue == BIAS && !device_range_valid(desc.bias, mnk[0] * layouts[3].element())) {
            return refuse(ILLEGAL_ADDRESS, "cublasLtMatmul: the bias of %llu elements starts at %s",
                          (unsigned long long)mnk[0], describe_address(desc.bias).c_str());
        }
        return OK;
    }

    u64 bytes(int i) const { return layouts[i].rows * layouts[i].columns * layouts[i].element(); }

    // What comes from memory at least: every operand once. How often the real library asks for the same, which its caches
    // answer, depends on its tiles.
    u64 bytes_read() const {
        const u64 bias = desc.epilogue == BIAS ? mnk[0] * layouts[3].element() : 0;
        return bytes(0) + bytes(1) + (beta != 0.0f ? bytes(2) : 0) + bias;
    }

    Code run(u64 n_parts) const {
        if (const Code code = live()) return code;
        constexpr size_t pad = 16;
        const u64 m = mnk[0], n = mnk[1], k = mnk[2];
        const auto at = [&](int i) { return reinterpret_cast<void*>(pointers[i]); };
        const std::vector<float> a = unpack(at(0), layouts[0], desc.transposed[0], 1),
                                 b = unpack(at(1), layouts[1], desc.transposed[1], pad);
        const size_t width = (n + pad - 1) / pad * pad;
        std::vector<float> out(m * width);
        for (u64 part = 0; part < n_parts; ++part) {
            const u64 first = k * part / n_parts, last = k * (part + 1) / n_parts;
            for (u64 column = 0; column < n; column += pad) {
                u64 row = 0;
                for (; row + 4 <= m; row += 4)
                    tile<4>(&out[row * width + column], &a[row * k], &b[column], k, first, last, width);
                for (; row < m; ++row) tile<1>(&out[row * width + column], &a[row * k], &b[column], k, first, last, width);
            }
        }
        const Layout &c = layouts[2], &d = layouts[3];
        for (u64 row = 0; row < m; ++row) {
            const float bias = desc.epilogue == BIAS ? load_element(reinterpret_cast<void*>(desc.bias), d.type, row) : 0.0f;
            for (u64 column = 0; column < n; ++column) {
                const auto index = [&](const Layout& l) {
                    return l.order == COLUMNS ? column * u64(l.ld) + row : row * u64(l.ld) + column;
                };
                float x = alpha * out[row * width + column];
                if (beta != 0.0f) x += beta * load_element(at(2), c.type, index(c));
                store_element(at(3), d.type, index(d), x + bias);
            }
        }
        return OK;
    }
};

// SIMT_PRODUCTS=count: products are counted and not carried out, and leave their results as they are.
bool only_counts() {
    static const char* const asked = std::getenv("SIMT_PRODUCTS");
    return asked && std::strcmp(asked, "count") == 0;
}

template <class T> Status set(T& field, const void* from, size_t bytes, const char* what) {
    if (!from || bytes != sizeof(T)) return no(BAD_VALUE, text("%s takes %zu bytes, not %zu", what, sizeof(T), bytes));
    std::memcpy(&field, from, sizeof(T));
    return SUCCESS;
}

}  // namespace

#define API extern "C" __attribute__((visibility("default")))
#define NEED(condition) \
    if (!(condition)) return no(BAD_VALUE, std::string(__func__) + ": a null argument")

API size_t cublasLtGetVersion() { return SIMT_MAJOR == 12 ? 120901 : 130002; }
API size_t cublasLtGetCudartVersion() { return SIMT_MAJOR == 12 ? 12090 : 13000; }
API Status cublasLtCreate(Handle** out) {
    void* context = nullptr;
    NEED(out);
    if (current_device_context(&context) != OK || !context)
        return no(NOT_INITIALIZED, "no context is current on the calling thread");
    int driver = 0;
    cuDriverGetVersion(&driver);
    if (driver / 1000 < SIMT_MAJOR) return no(NOT_INITIALIZED, "the driver is older than this library");
    *out = new Handle;
    return SUCCESS;
}
API Status cublasLtDestroy(Handle* handle) {
    NEED(handle);
    delete handle;
    return SUCCESS;
}
API const char* cublasLtGetStatusName(Status status) {
    switch (status) {
        case SUCCESS: return "CUBLAS_STATUS_SUCCESS";
        case NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
        case ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
        case BAD_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
        case EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
        case UNSUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    }
    return "unknown";
}
API const char* cublasLtGetStatusString(Status status) { return cublasLtGetStatusName(status); }

API Status cublasLtMatmulDescCreate(Desc** out, u32 compute, u32 scale) {
    NEED(out);
    *out = new Desc;
    (*out)->compute = compute;
    (*out)->scale = scale;
    return SUCCESS;
}
API Status cublasLtMatmulDescDestroy(Desc* desc) {
    NEED(desc);
    delete desc;
    return SUCCESS;
}
API Status cublasLtMatmulDescSetAttribute(Desc* desc, int attribute, const void* from, size_t bytes) {
    NEED(desc);
    int pointer_mode = 0;
    switch (attribute) {
        case 0: return set(desc->compute, from, bytes, "the compute type");
        case 1: return set(desc->scale, from, bytes, "the scale type");
        case 2:
            if (const Status status = set(pointer_mode, from, bytes, "the pointer mode")) return status;
            return pointer_mode == 0 ? SUCCESS : no(UNSUPPORTED, "only scales in host memory");
        case 3:
        case 4: {
            int& transposed = desc->transposed[attribute - 3];
            if (const Status status = set(transposed, from, bytes, "a transpose")) return status;
            return transposed == 0 || transposed == 1 ? SUCCESS : no(UNSUPPORTED, "only CUBLAS_OP_N and CUBLAS_OP_T");
        }
        case 7: return set(desc->epilogue, from, bytes, "the epilogue");
        case 8: return set(desc->bias, from, bytes, "the bias pointer");
        case 26: return set(desc->bias_type, from, bytes, "the bias type");
        default: return no(UNSUPPORTED, text("attribute %d of a product", attribute));
    }
}
API Status cublasLtMatrixLayoutCreate(Layout** out, u32 type, u64 rows, u64 columns, int64_t ld) {
    NEED(out);
    *out = new Layout{type, COLUMNS, rows, columns, ld};
    return SUCCESS;
}
API Status cublasLtMatrixLayoutDestroy(Layout* layout) {
    NEED(layout);
    delete layout;
    return SUCCESS;
}
API Status cublasLtMatrixLayoutSetAttribute(Layout* layout, int attribute, const void* from, size_t bytes) {
    NEED(layout);
    int count = 1;
    switch (attribute) {
        case 0: return set(layout->type, from, bytes, "a matrix's type");
        case 1: return set(layout->order, from, bytes, "a matrix's order");
        case 2: return set(layout->rows, from, bytes, "a number of rows");
        case 3: return set(layout->columns, from, bytes, "a number of columns");
        case 4: return set(layout->ld, from, bytes, "a leading dimension");
        case 5:
            if (const Status status = set(count, from, bytes, "a batch count")) return status;
            return count == 1 ? SUCCESS : no(UNSUPPORTED, "batches of products");
        default: return no(UNSUPPORTED, text("attribute %d of a layout", attribute));
    }
}
API Status cublasLtMatmulPreferenceCreate(Preference** out) {
    NEED(out);
    *out = new Preference;
    return SUCCESS;
}
API Status cublasLtMatmulPreferenceDestroy(Preference* preference) {
    NEED(preference);
    delete preference;
    return SUCCESS;
}
API Status cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* from, size_t bytes) {
    NEED(preference);
    u32 ignored;
    switch (attribute) {
        case 1: return set(preference->workspace, from, bytes, "the workspace's size");
        case 0:
        case 3: return set(ignored, from, bytes, "a mask");
        case 5:
        case 6:
        case 7:
        case 8: return set(preference->alignment[attribute - 5], from, bytes, "an alignment");
        default: return no(UNSUPPORTED, text("attribute %d of a preference", attribute));
    }
}

API Status cublasLtMatmulAlgoGetHeuristic(Handle* handle, Desc* desc, Layout* a, Layout* b, Layout* c, Layout* d,
                                          Preference* preference, int wanted, HeuristicResult* out, int* n_found) {
    NEED(handle && desc && a && b && c && d && preference && out && n_found);
    *n_found = 0;
    if (wanted < 1) return no(BAD_VALUE, "no algorithm was asked for");
    u64 mnk[3];
    const Layout* const layouts[4] = {a, b, c, d};
    if (const Status status = understand(*desc, layouts, mnk)) return status;
    for (const Layout* l : layouts) {
        // The real one has algorithms for some of these products.
        if (l->type == BF16 && l->ld % 2)
            return no(UNSUPPORTED, "no algorithm for bf16 with an odd leading dimension: " + shape(*l));
    }
    for (u32 id = 0; id < N_ALGORITHMS && *n_found < wanted; ++id) {
        Algo algo = {};
        algo.magic = MAGIC;
        algo.id = id;
        for (int i = 0; i < 2; ++i) algo.types[i] = u8(layouts[i]->type);
        algo.types[2] = u8(d->type);
        algo.transposed = u8(desc->transposed[0] | desc->transposed[1] << 1);
        algo.epilogue = desc->epilogue;
        for (int i = 0; i < 4; ++i) {
            algo.pointer_alignment[i] = u16(preference->alignment[i]);
            algo.line_alignment[i] = u8(layouts[i]->alignment());
        }
        for (int i = 0; i < 3; ++i) algo.mnk[i] = u32(mnk[i]);
        // A product over many k is split, which takes space; so is every one by the later algorithms.
        if (mnk[2] >= 4096) algo.workspace = std::min<u64>(preference->workspace, mnk[0] * mnk[1] * 8);
        if (id > 0) algo.workspace = std::max(algo.workspace, mnk[0] * mnk[1] * 4);
        if (algo.workspace > preference->workspace) continue;
        HeuristicResult& result = out[(*n_found)++];
        std::memset(&result, 0, sizeof result);
        std::memcpy(result.algo, &algo, sizeof algo);
        result.workspace_size = algo.workspace;
        result.waves = 1.0f;
    }
    return SUCCESS;
}

static u64 mixed(u64 x) {
    x = (x ^ x >> 31) * 0x9E3779B97F4A7C15ull;
    return x ^ x >> 29;
}

// What an algorithm cannot be used for, whatever the pointers.
static Status check_kind(const Algo& algo, const Desc& desc, const Layout* const (&layouts)[4], const u64 (&mnk)[3]) {
    if (algo.magic != MAGIC || algo.id >= N_ALGORITHMS)
        return no(BAD_VALUE, "an algorithm that did not come from the heuristic");
    if (algo.types[0] != layouts[0]->type || algo.types[1] != layouts[1]->type || algo.types[2] != layouts[3]->type ||
        algo.transposed != u8(desc.transposed[0] | desc.transposed[1] << 1) || algo.epilogue != desc.epilogue) {
        return no(UNSUPPORTED, "an algorithm chosen for other types, transposes or another epilogue");
    }
    for (int i = 0; i < 4; ++i) {
        if (layouts[i]->alignment() < algo.line_alignment[i])
            return no(UNSUPPORTED, text("matrix %c with lines aligned to %u bytes, chosen for %u", "ABCD"[i],
                                        layouts[i]->alignment(), algo.line_alignment[i]));
    }
    bool is_resized = false;
    u64 mix = thread_seed() * 8 + algo.id;
    for (int i = 0; i < 3; ++i) {
        is_resized = is_resized || algo.mnk[i] != mnk[i];
        mix = mixed(mix + mnk[i]);
    }
    if (is_resized && thread_seed() != 0 && mix % 4 == 0)
        return no(UNSUPPORTED, text("algorithm %u does not take this size, as the seed has it", algo.id));
    return SUCCESS;
}

// What an algorithm cannot be used for with these pointers.
static Status check_algo(const Algo& algo, const Product& product, u64 workspace, size_t workspace_bytes) {
    for (int i = 0; i < 4; ++i) {
        if (i == 2 && product.beta == 0.0f) continue;
        if (product.pointers[i] % algo.pointer_alignment[i]) {
            return no(UNSUPPORTED,
                      text("matrix %c at a multiple of less than %u bytes, which is what the preference promised", "ABCD"[i],
                           algo.pointer_alignment[i]));
        }
    }
    if (workspace_bytes < algo.workspace)
        return no(BAD_VALUE, text("a workspace of %zu bytes where the algorithm needs %llu", workspace_bytes,
                                  (unsigned long long)algo.workspace));
    if (workspace_bytes > 0 && workspace % 256) return no(BAD_VALUE, "a workspace that is not aligned to 256 bytes");
    if (algo.workspace > 0 && !device_range_valid(workspace, workspace_bytes))
        return no(BAD_VALUE, "a workspace that is not device memory");
    return SUCCESS;
}

API Status cublasLtMatmulAlgoCheck(Handle* handle, Desc* desc, Layout* a, Layout* b, Layout* c, Layout* d,
                                   const u64* algo_words, HeuristicResult* out) {
    NEED(handle && desc && a && b && c && d && algo_words && out);
    u64 mnk[3];
    const Layout* const layouts[4] = {a, b, c, d};
    if (const Status status = understand(*desc, layouts, mnk)) return status;
    Algo algo;
    std::memcpy(&algo, algo_words, sizeof algo);
    if (const Status status = check_kind(algo, *desc, layouts, mnk)) return status;
    std::memset(out, 0, sizeof *out);
    std::memcpy(out->algo, algo_words, sizeof out->algo);
    out->workspace_size = algo.workspace;
    return SUCCESS;
}

// Milliseconds that the device's clock advances by for a product.
static double pretended_time(u32 id) {
    static const char* const value = std::getenv("SIMT_BLAS_SEED");
    static const u32 seed = value ? u32(std::strtoul(value, nullptr, 10)) % N_ALGORITHMS : 0;
    return value ? 10.0 + 5.0 * ((id + N_ALGORITHMS - seed) % N_ALGORITHMS) : 0.0;
}

API Status cublasLtMatmul(Handle* handle, Desc* desc, const float* alpha, u64 a, Layout* a_layout, u64 b, Layout* b_layout,
                          const float* beta, u64 c, Layout* c_layout, u64 d, Layout* d_layout, const u64* algo_words,
                          u64 workspace, size_t workspace_bytes, void* stream) {
    NEED(handle && desc && alpha && beta && a && b && d && a_layout && b_layout && c_layout && d_layout);
    void* context = nullptr;
    if (current_device_context(&context) != OK || !context)
        return no(NOT_INITIALIZED, "no context is current on the calling thread");
    Product product{*desc, {*a_layout, *b_layout, *c_layout, *d_layout}, {}, *alpha, *beta, {a, b, c, d}};
    const Layout* const layouts[4] = {a_layout, b_layout, c_layout, d_layout};
    if (const Status status = understand(*desc, layouts, product.mnk)) return status;
    if (product.beta != 0.0f && !c) return no(BAD_VALUE, "beta without C");
    // Without an algorithm the real library asks its heuristic, each time; hbt should not.
    if (!algo_words) return no(BAD_VALUE, "no algorithm");
    Algo algo;
    std::memcpy(&algo, algo_words, sizeof algo);
    if (const Status status = check_kind(algo, *desc, layouts, product.mnk)) return status;
    if (const Status status = check_algo(algo, product, workspace, workspace_bytes)) return status;
    if (product.live() != OK) return EXECUTION_FAILED;
    const u64 flops = product.mnk[0] * product.mnk[1] * product.mnk[2];
    const Code code = submit(stream,
                             [=] {
                                 // What the algorithm keeps there meanwhile is its own business.
                                 if (algo.workspace > 0)
                                     std::memset(reinterpret_cast<void*>(workspace), 0xFF, algo.workspace);
                                 Counters counters = {};
                                 counters.launches = 1;
                                 counters.mma = flops / 2048;
                                 counters.global_read = product.bytes_read();
                                 counters.global_written = product.bytes(3);
                                 add_counters("cublasLtMatmul", counters);
                                 pretend(pretended_time(algo.id));
                                 return only_counts() ? product.live() : product.run(algo.id + 1);
                             },
                             {a, b, c, d, desc->bias, workspace});
    return code == OK ? SUCCESS : EXECUTION_FAILED;
}
