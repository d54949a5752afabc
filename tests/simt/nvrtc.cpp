// NVRTC, as far as a first use of the kernels goes. Nothing is compiled: the "cubin" names the file, whose kernels g++ has
// compiled into the stand-in: those of them that g++'s preprocessor, given the same definitions, leaves in the source.
// What the real one would refuse is refused: unknown headers, options, architectures. Built
// twice, as SIMT_MAJOR 12 and 13, which write images of two formats.
#include <stdlib.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "images.h"

namespace {

enum Result { SUCCESS = 0, INVALID_INPUT = 3, INVALID_PROGRAM = 4, INVALID_OPTION = 5, COMPILATION = 6 };

struct Program {
    std::string source, name, log, cubin, ptx;
    std::vector<std::pair<std::string, std::string>> headers;
};

// Whether every header that a text includes was handed over.
bool includes_known(Program& program, const std::string& file, const std::string& text, std::set<std::string>& seen) {
    static const std::regex include("^[ \t]*#[ \t]*include[ \t]*[<\"]([^>\"]+)[>\"]");
    // Under a CUDA compiler __CUDACC__ is defined, so the g++ branch is not seen.
    size_t start = 0;
    while (start < text.size()) {
        const size_t end = std::min(text.find('\n', start), text.size());
        const std::string line = text.substr(start, end - start);
        start = end + 1;
        std::smatch match;
        if (!std::regex_search(line, match, include) || match[1] == "simt.h") continue;
        const std::string wanted = match[1];
        if (!seen.insert(wanted).second) continue;
        bool found = false;
        for (const auto& [name, content] : program.headers) {
            if (name != wanted) continue;
            found = true;
            if (!includes_known(program, wanted, content, seen)) return false;
        }
        if (!found) {
            program.log = file + "(1): catastrophic error: cannot open source file \"" + wanted +
                          "\"\n1 catastrophic error detected in the compilation of \"" + program.name + "\".\n";
            return false;
        }
    }
    return true;
}

// Part of the report that SIMT_REPORT=1 asks for.
struct Compiled {
    std::atomic<int> files{0};

    ~Compiled() {
        const char* wanted = std::getenv("SIMT_REPORT");
        if (wanted && std::strcmp(wanted, "1") == 0)
            std::fprintf(stderr, "simt: NVRTC %d compiled %d files\n", SIMT_MAJOR, int(files));
    }
} compiled;

// A directory that goes with what is in it.
struct Folder {
    std::filesystem::path path = std::filesystem::temp_directory_path() / "hbt-simt-nvrtc-XXXXXX";
    Folder() {
        std::string name = path.string();
        if (mkdtemp(name.data())) path = name;
    }
    ~Folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path, ignored);
    }
};

// The names of the kernels that a compiler sees which is given these definitions, with a blank before each.
std::string kernels_of(const Program& program, const std::string& definitions) {
    const Folder folder;
    for (const auto& [name, text] : program.headers) std::ofstream(folder.path / name) << text;
    std::ofstream(folder.path / "source.cpp") << program.source;
    const char* compiler = std::getenv("CXX");
    const std::string command = std::string(compiler ? compiler : "g++") + " -E -P -std=c++17 -D__CUDACC__" + definitions +
                                " " + (folder.path / "source.cpp").string();
    std::string text, names;
    FILE* const pipe = popen(command.c_str(), "r");
    char buffer[4096];
    for (size_t n; pipe && (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, n);
    if (!pipe || pclose(pipe) != 0) return "";
    const std::string mark = "__launch_bounds__(";
    for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at)) {
        at += mark.size();
        for (int depth = 1; depth > 0; ++at) depth += (text[at] == '(') - (text[at] == ')');
        at = text.find_first_not_of(" \n", at);
        names += " " + text.substr(at, text.find('(', at) - at);
    }
    return names;
}

std::string stem(const std::string& name) {
    const size_t slash = name.find_last_of('/'), start = slash == std::string::npos ? 0 : slash + 1;
    return name.substr(start, name.find_last_of('.') - start);
}

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) int

API nvrtcVersion(int* major, int* minor) {
    // One that never was: what hbt keeps of our "cubins" in its cache must not be taken for a real one's.
    *major = SIMT_MAJOR;
    *minor = 99;
    return SUCCESS;
}
API nvrtcGetNumSupportedArchs(int* n) {
    *n = 6;
    return SUCCESS;
}
API nvrtcGetSupportedArchs(int* out) {
    const int archs[] = {80, 86, 89, 90, 100, 120};
    std::memcpy(out, archs, sizeof archs);
    return SUCCESS;
}
API nvrtcCreateProgram(Program** out, const char* source, const char* name, int n_headers, const char* const* headers,
                       const char* const* names) {
    if (!out || !source || n_headers < 0) return INVALID_INPUT;
    Program* program = new Program;
    program->source = source;
    program->name = name ? name : "default_program";
    for (int i = 0; i < n_headers; ++i) program->headers.emplace_back(names[i], headers[i]);
    *out = program;
    return SUCCESS;
}
API nvrtcCompileProgram(Program* program, int n, const char* const* options) {
    if (!program) return INVALID_PROGRAM;
    std::string arch, definitions;
    static const char* const known[] = {
        "--std=c++17",     "-std=c++17",           "--fmad=false", "-fmad=false", "--device-as-default-execution-space",
        "-default-device", "--generate-line-info", "-lineinfo"};
    for (int i = 0; i < n; ++i) {
        const std::string option = options[i];
        const size_t equals = option.find('=');
        const std::string key = option.substr(0, equals);
        if (key == "--gpu-architecture" || key == "-arch") {
            arch = option.substr(equals + 1);
            if (!std::regex_match(arch, std::regex("(sm|compute)_(80|86|87|89|90a?|100|120)"))) {
                program->log = "nvrtc: error: invalid value for --gpu-architecture (-arch)\n";
                return INVALID_OPTION;
            }
            continue;
        }
        if (key.substr(0, 2) == "-D") definitions += " " + option;
        bool found = key.substr(0, 2) == "-D" || key == "--maxrregcount" || key == "--use_fast_math=false";
        for (const char* other : known) found = found || option == other;
        if (!found) {
            program->log = "nvrtc: error: unrecognized option " + option + " found\n";
            return INVALID_OPTION;
        }
    }
    std::set<std::string> seen;
    if (!includes_known(*program, program->name, program->source, seen)) return COMPILATION;
    const char* failing = std::getenv("SIMT_NVRTC_FAILS");
    if (failing && (std::strcmp(failing, "1") == 0 || std::atoi(failing) == SIMT_MAJOR)) {
        program->log = program->name + "(1): error: SIMT_NVRTC_FAILS is set\n1 error detected in the compilation of \"" +
                       program->name + "\".\n";
        return COMPILATION;
    }
    program->log = "";
    const std::string target = arch.substr(arch.find('_') + 1),
                      kernels = "SIMT kernels of " + stem(program->name) + ":" + kernels_of(*program, definitions) + "\n";
    program->ptx = "//\n// " + kernels + ".version " + (SIMT_MAJOR == 12 ? "8.8" : "9.0") + "\n.target sm_" + target + "\n";
    // A virtual architecture gives PTX alone.
    if (arch.substr(0, 3) == "sm_") {
        simt::Elf elf = {{0x7F, 'E', 'L', 'F'},
                         2,
                         1,
                         1,
                         SIMT_MAJOR == 12 ? simt::Elf::CUDA_12 : simt::Elf::CUDA_13,
                         SIMT_MAJOR == 12 ? uint8_t(7) : uint8_t(8),
                         {},
                         2,
                         190,
                         1,
                         0,
                         0,
                         0,
                         0,
                         {}};
        elf.flags = uint32_t(std::atoi(target.c_str())) << (SIMT_MAJOR == 12 ? 0 : 8);
        program->cubin = std::string(reinterpret_cast<const char*>(&elf), sizeof elf) + kernels;
        program->cubin.push_back(0);
    }
    ++compiled.files;
    return SUCCESS;
}
API nvrtcGetProgramLogSize(Program* program, size_t* out) {
    *out = program->log.size() + 1;
    return SUCCESS;
}
API nvrtcGetProgramLog(Program* program, char* out) {
    std::memcpy(out, program->log.c_str(), program->log.size() + 1);
    return SUCCESS;
}
API nvrtcGetPTXSize(Program* program, size_t* out) {
    if (program->ptx.empty()) return INVALID_PROGRAM;
    *out = program->ptx.size() + 1;
    return SUCCESS;
}
API nvrtcGetPTX(Program* program, char* out) {
    if (program->ptx.empty()) return INVALID_PROGRAM;
    std::memcpy(out, program->ptx.c_str(), program->ptx.size() + 1);
    return SUCCESS;
}
API nvrtcGetCUBINSize(Program* program, size_t* out) {
    if (program->ptx.empty()) return INVALID_PROGRAM;
    *out = program->cubin.size();
    return SUCCESS;
}
API nvrtcGetCUBIN(Program* program, char* out) {
    if (program->cubin.empty()) return INVALID_PROGRAM;
    std::memcpy(out, program->cubin.data(), program->cubin.size());
    return SUCCESS;
}
API nvrtcDestroyProgram(Program** program) {
    if (!program || !*program) return INVALID_PROGRAM;
    delete *program;
    *program = nullptr;
    return SUCCESS;
}
extern "C" __attribute__((visibility("default"))) const char* nvrtcGetErrorString(int result) {
    static const char* const names[] = {"NVRTC_SUCCESS",
                                        "NVRTC_ERROR_OUT_OF_MEMORY",
                                        "NVRTC_ERROR_PROGRAM_CREATION_FAILURE",
                                        "NVRTC_ERROR_INVALID_INPUT",
                                        "NVRTC_ERROR_INVALID_PROGRAM",
                                        "NVRTC_ERROR_INVALID_OPTION",
                                        "NVRTC_ERROR_COMPILATION"};
    return result >= 0 && result <= COMPILATION ? names[result] : "NVRTC_ERROR unknown";
}
