"""Compiles every kernel with nvcc as build.rs does, and says what each takes of a multiprocessor.

It is an error if a kernel spills registers, keeps variables in local memory or takes a store of 16 bytes apart, if attention
on tensor cores does without their instructions, or if kernels/RESOURCES.md is not what this nvcc, of the version that made
that file, says. Run by .ci/kernels, which finds the programs.
"""

import argparse
import difflib
import os
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

import sass
from sources import KERNELS, ROOT, Failure, run, rust_array

BUILD = ROOT / "build.rs"
TABLE = KERNELS / "RESOURCES.md"
# Architectures of the table, with the bytes of shared memory of a multiprocessor (CUDA programming guide, table
# "technical specifications per compute capability").
SHARED_BYTES = {80: 164 << 10, 90: 228 << 10}
# Tensor cores, their loads from shared memory, and copies of 16 bytes to shared memory that bypass registers.
INSTRUCTIONS = {"HMMA": [], "LDSM": [], "LDGSTS": ["128"]}
ON_TENSOR_CORES = re.compile(r"attention_(forward|backward)_\d+_\w+|info_nce_exps")


class Use(NamedTuple):
    """What ptxas says that a kernel takes."""

    registers: int
    static_shared: int


class Kernel(NamedTuple):
    """What of a kernel is the same on all architectures."""

    name: str
    threads: int
    dynamic_shared: int


class Compiled(NamedTuple):
    """A file compiled for one architecture."""

    file: Path
    architecture: int
    kernels: List[Kernel]
    uses: Dict[str, Use]
    # Instructions that read and that write 16 bytes of global memory, by kernel.
    wide: Dict[str, Tuple[int, int]]
    faults: List[str]


def parse_ptx(text):
    """Kernels in the order of the source, with their launch bounds and their notes on dynamic shared memory."""
    kernels = []
    arrays = re.findall(r"^\.extern \.shared [^;]*?([\w$]+)\[\];", text, re.M)
    for part in text.split(".visible .entry ")[1:]:
        name = re.match(r"\w+", part)[0]
        threads = re.search(r"^\.maxntid (\d+)", part, re.M)
        if not threads:
            raise Failure(f"{name} has no launch bounds: declare it with KERNEL")
        notes = [int(n) for n in re.findall(r"// dynamic shared memory: (\d+) bytes", part)]
        if not notes and any(re.search(rf"(?<![.\w$]){re.escape(array)}(?![\w$])", part) for array in arrays):
            raise Failure(f"{name} does not say how much dynamic shared memory it has: declare it with DYNAMIC_SHARED")
        kernels.append(Kernel(name, int(threads[1]), max(notes, default=0)))
    return kernels


def parse_log(text, file, architecture):
    """Uses of the kernels by name, and complaints about what goes through local memory."""
    faults = []
    properties = r"Function properties for (\S+)\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    for name, *sizes in re.findall(properties, text):
        if any(size != "0" for size in sizes):
            stack, stores, loads = sizes
            faults.append(
                f"{file.name}: {name} on sm_{architecture}: {stack} bytes of local memory; spills: {stores} bytes stored, "
                f"{loads} loaded"
            )
    uses = {}
    for part in text.split("Compiling entry function '")[1:]:
        name, registers = re.match(r"\w+", part)[0], re.search(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        if not registers or "bytes spill stores" not in part:
            raise Failure(f"cannot read what ptxas says about {name}:\n{part}")
        uses[name] = Use(int(registers[1]), int(shared[1]) if shared else 0)
    return uses, faults


def compile_file(programs, options, file, architecture, folder):
    """Compiles one file for one architecture, and looks through its code."""
    place = Path(folder) / f"{file.stem}_{architecture}"
    place.mkdir()
    cubin = place / "kernels.cubin"
    # The PTX, which has what the source says of a kernel, is one of the files on the way.
    to = ["-cubin", f"-arch=sm_{architecture}", "-Xptxas", "-v", "--keep", "--keep-dir", place, "-o", cubin]
    log = run(programs.nvcc, *options, *to, file)
    kernels = parse_ptx((place / f"{file.stem}.ptx").read_text())
    uses, faults = parse_log(log, file, architecture)
    code = sass.parse(run(programs.cuobjdump, "-sass", cubin))
    if not uses.keys() == code.keys() == {kernel.name for kernel in kernels}:
        raise Failure(f"{file.name}: its PTX and its code for sm_{architecture} have different kernels")
    for name, instructions in code.items():
        wrong = sass.faults(name, instructions) + without_tensor_cores(name, instructions)
        faults += [f"{file.name}: {name} on sm_{architecture}: {fault}" for fault in wrong]
    wide = {name: (sass.wide(i, "LDG", "LDGSTS"), sass.wide(i, "STG")) for name, i in code.items()}
    return Compiled(file, architecture, kernels, uses, wide, faults)


def without_tensor_cores(name, instructions):
    """A complaint if an attention kernel lacks one of INSTRUCTIONS."""
    if not ON_TENSOR_CORES.fullmatch(name):
        return []
    codes = [instruction.code.split(".") for instruction in instructions]
    missing = [
        ".".join([word, *how])
        for word, how in INSTRUCTIONS.items()
        if not any(code[0] == word and set(how) <= set(code) for code in codes)
    ]
    return [f"no {', '.join(missing)}"] if missing else []


def round_up(n, unit):
    return -(-n // unit) * unit


def resident_warps(architecture, threads, registers, shared):
    """Warps on a multiprocessor when it has as many blocks as it can: the rules of the CUDA occupancy calculator."""
    warps = round_up(threads, 32) // 32
    # Each of four parts of a multiprocessor has 16,384 registers, given out by 256 to its warps.
    by_registers = 4 * (16384 // round_up(registers * 32, 256)) // warps
    # A KiB of every block's shared memory is the system's.
    by_shared = SHARED_BYTES[architecture] // round_up(shared + 1024, 128)
    return min(64 // warps, 32, by_registers, by_shared) * warps


def table(modules, version):
    """The text of kernels/RESOURCES.md."""
    architectures = list(SHARED_BYTES)
    text = [
        "# What the kernels take of a multiprocessor",
        "",
        f"Made by `.ci/kernels --write` with nvcc {version}; `.ci/run` checks it, and that no kernel spills registers or has",
        "variables in local memory or takes a store of 16 bytes apart, on any architecture that build.rs compiles for.",
        "",
        "Threads are the most that a block is launched with, and dynamic shared memory is the most that a launch asks for, both",
        "as the source says; static and dynamic shared memory are in bytes a block. Warps are those that are resident on a",
        "multiprocessor by the rules of the CUDA occupancy calculator, of 64. Loads and stores are the instructions in sm_80's code",
        "that move 16 bytes of global memory each, by way of registers or, for loads, straight to shared memory.",
    ]
    for file, compiled in modules.items():
        head = ["kernel", "threads", *(f"registers sm_{a}" for a in architectures), "static", "dynamic"]
        head += [f"warps sm_{a}" for a in architectures] + ["loads", "stores"]
        text += ["", f"## {file.name}", "", f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
        for name, threads, dynamic in compiled[architectures[0]].kernels:
            uses = [compiled[a].uses[name] for a in architectures]
            static = max(use.static_shared for use in uses)
            warps = [
                resident_warps(a, threads, use.registers, use.static_shared + dynamic)
                for a, use in zip(architectures, uses)
            ]
            row = [threads, *(use.registers for use in uses), static, dynamic]
            cells = [f"{n:,}" for n in row] + [f"{n} ({n / 64:.0%})" for n in warps]
            cells += [str(n) for n in compiled[architectures[0]].wide[name]]
            text.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def check(programs, write):
    version = re.search(r"release [\d.]+, V([\d.]+)", run(programs.nvcc, "--version"))[1]
    known = run(programs.nvcc, "--list-gpu-code").split()
    wanted = [int(a) for a in rust_array("ARCHITECTURES", BUILD)]
    architectures = [a for a in wanted if f"sm_{a}" in known]
    if not set(SHARED_BYTES) <= set(architectures):
        raise Failure(f"nvcc {version} is too old or too new: it does not know both sm_80 and sm_90")
    options = rust_array("OPTIONS", BUILD)
    print(f"nvcc {version}, {' '.join(options)}, for {' '.join(f'sm_{a}' for a in architectures)}", flush=True)

    files = sorted(KERNELS.glob("*.cu"))
    modules = {file: {} for file in files}
    faults, n_attention = [], 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        # Those of attention take longest: first, so that none is left alone at the end.
        jobs = [(file, a) for file in sorted(files, key=lambda file: -file.stat().st_size) for a in architectures]
        for compiled in pool.map(lambda job: compile_file(programs, options, *job, folder), jobs):
            modules[compiled.file][compiled.architecture] = compiled
            faults += compiled.faults
            n_attention += sum(bool(ON_TENSOR_CORES.fullmatch(kernel.name)) for kernel in compiled.kernels)
    text = table(modules, version)
    print(text)
    if n_attention == 0:
        faults.append(f"no kernel is called {ON_TENSOR_CORES.pattern}, so nothing is known of attention on tensor cores")
    if write:
        TABLE.write_text(text)
    if faults:
        raise Failure("\n".join(faults))
    compare(text, version)


def compare(text, version):
    """Fails if the table in the repository is another one, unless another nvcc made it."""
    kept = TABLE.read_text() if TABLE.exists() else ""
    made_by = re.search(r"with nvcc ([\d.]+);", kept)
    if made_by and made_by[1] != version:
        print(f"{TABLE.name} was made by nvcc {made_by[1]}, so it is not compared with what {version} says")
    elif kept != text:
        lines = difflib.unified_diff(kept.splitlines(), text.splitlines(), "kernels/RESOURCES.md", "now", "", "", 0, "")
        raise Failure("\n".join([*lines, "kernels/RESOURCES.md is out of date; run .ci/kernels --write"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, prog=".ci/kernels")
    parser.add_argument("--nvcc", required=True, type=Path)
    parser.add_argument("--cuobjdump", required=True, type=Path)
    parser.add_argument("--write", action="store_true", help="keep the table in kernels/RESOURCES.md")
    arguments = parser.parse_args()
    # cuobjdump calls the nvdisasm that it finds.
    os.environ["PATH"] = f"{arguments.cuobjdump.parent}{os.pathsep}{os.environ['PATH']}"
    try:
        check(arguments, arguments.write)
    except Failure as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    main()
