// The forms of images, as far as a driver's loader looks at them: fat binaries, ELF and PTX, as nvcc and NVRTC write them.
// Read off with cuobjdump and xxd from images of nvcc 12.9 and 13.5.
#pragma once

#include <cstdint>

namespace simt {

struct FatBinary {
    static constexpr uint32_t MAGIC = 0xBA55ED50;
    uint32_t magic;
    uint16_t version, header_bytes;
    // Of all entries with their headers.
    uint64_t bytes;
};

struct FatEntry {
    enum Kind : uint16_t { PTX = 1, ELF = 2 };
    // Of `flags`: from CUDA 12.4's driver on.
    static constexpr uint64_t ZSTD = 0x8000, LZ4 = 0x2000;
    uint16_t kind, version;
    uint32_t header_bytes;
    uint64_t bytes;
    uint32_t unused[2];
    uint16_t minor, major;
    uint32_t architecture;
    uint32_t name[2];
    uint64_t flags;
};

// What is at the start of a cubin; the rest of the 64 bytes is not looked at.
struct Elf {
    // Operating system "CUDA"; the second is nvcc 13's format, which no 12.x driver reads.
    static constexpr uint8_t CUDA_12 = 0x33, CUDA_13 = 0x41;
    uint8_t magic[4], wide, little_endian, version, os, abi, zeros[7];
    uint16_t type, machine;
    uint32_t elf_version;
    uint64_t entry, program_headers, section_headers;
    uint32_t flags;
    uint8_t rest[12];

    uint32_t architecture() const { return os == CUDA_13 ? flags >> 8 & 0xFF : flags & 0xFF; }
};
static_assert(sizeof(FatBinary) == 16 && sizeof(FatEntry) == 48 && sizeof(Elf) == 64, "as in the files");

}  // namespace simt
