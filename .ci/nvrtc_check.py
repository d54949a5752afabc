"""Compiles every kernel with NVRTC as the program does on a machine without nvcc: the same options, and the headers by
name. It is an error if NVRTC has anything to say, or if .ci/sass.py has of the code.

Run by .ci/nvrtc, which finds the libraries. The costliest files come first, so that none is left alone at the end.
"""

import argparse
import ctypes
import multiprocessing
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import sass
from sources import KERNELS, ROOT, Failure, run, rust_array

# Architectures that every file is compiled for: all that it holds, which takes most of the time, by each library for one of
# them in turn, and what a run needs by both for both.
ARCHITECTURES = [80, 90]
# What a run of XLM-R base in bf16 needs, as src/backend/cuda/workload.rs says it.
RUN = {"TYPE": 16, "HEAD": 64, "WIDTH": 768}
# A small file is compiled by each library for all that it knows from the oldest of them on: code for each can be had.
SMALL = "rows.cu"


class Nvrtc:
    """One library's functions."""

    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def call(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code != 0:
            raise Failure(f"{name}: {self.library.nvrtcGetErrorString(code).decode()}")

    def version(self):
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    def architectures(self):
        n = ctypes.c_int()
        self.call("nvrtcGetNumSupportedArchs", ctypes.byref(n))
        numbers = (ctypes.c_int * n.value)()
        self.call("nvrtcGetSupportedArchs", numbers)
        return list(numbers)

    def text(self, of, program):
        """What the functions nvrtcGet`of`Size and nvrtcGet`of` have of a program."""
        size = ctypes.c_size_t()
        self.call(f"nvrtcGet{of}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self.call(f"nvrtcGet{of}", program, buffer)
        return buffer.raw

    def compile(self, file, options):
        """The cubin."""
        headers = sorted(KERNELS.glob("*.cuh"))
        strings = lambda texts: (ctypes.c_char_p * len(texts))(*[text.encode() for text in texts])
        names, texts = strings([header.name for header in headers]), strings([header.read_text() for header in headers])
        program = ctypes.c_void_p()
        source = file.read_text().encode()
        self.call("nvrtcCreateProgram", ctypes.byref(program), source, file.name.encode(), len(headers), texts, names)
        try:
            code = self.library.nvrtcCompileProgram(program, len(options), strings(options))
            log = self.text("ProgramLog", program).decode().strip("\0\n")
            if code != 0 or log:
                raise Failure(f"{self.library.nvrtcGetErrorString(code).decode()}: {log}")
            return self.text("CUBIN", program)
        finally:
            self.call("nvrtcDestroyProgram", ctypes.byref(program))


def check(job):
    """Compiles one file with one library; what is wrong, and the seconds that it took."""
    library, file, architecture, whole, options, cuobjdump = job
    nvrtc = Nvrtc(library)
    what = f"{file.name}{'' if whole else ', of one run,'} by NVRTC {nvrtc.version()} for sm_{architecture}"
    if not whole:
        options = [*options, *(f"-DHBT_{name}={value}" for name, value in RUN.items())]
    start = time.monotonic()
    try:
        cubin = nvrtc.compile(file, [*options, f"--gpu-architecture=sm_{architecture}"])
        seconds = time.monotonic() - start
        with tempfile.NamedTemporaryFile(suffix=".cubin") as kept:
            kept.write(cubin)
            kept.flush()
            kernels = sass.parse(run(cuobjdump, "-sass", kept.name))
    except Failure as failure:
        return what, [f"{what}: {failure}"], 0.0
    faults = [f"{what}: {name}: {fault}" for name, code in kernels.items() for fault in sass.faults(name, code)]
    # A run may need nothing of a file.
    return what, faults if kernels or not whole else [f"{what}: no kernels"], seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, prog=".ci/nvrtc")
    parser.add_argument("--cuobjdump", required=True, type=Path)
    parser.add_argument("libraries", nargs="+", metavar="LIBRARY", help="path of a libnvrtc.so")
    parser.add_argument("--only", metavar="FILE", help="of kernels/")
    arguments = parser.parse_args()
    # cuobjdump calls the nvdisasm that it finds.
    os.environ["PATH"] = f"{arguments.cuobjdump.parent}{os.pathsep}{os.environ['PATH']}"
    options = rust_array("OPTIONS", ROOT / "src/backend/cuda")
    names = set(re.findall(r"^#ifndef HBT_(\w+)", (KERNELS / "common.cuh").read_text(), re.M))
    if names != set(RUN):
        sys.exit(f"kernels/common.cuh asks for {', '.join(sorted(names))}; RUN in {Path(__file__).name} says other things")
    jobs = []
    for i, library in enumerate(arguments.libraries):
        known = [a for a in Nvrtc(library).architectures() if a >= min(ARCHITECTURES)]
        for file in KERNELS.glob(arguments.only or "*.cu"):
            whole = known if file.name == SMALL else [ARCHITECTURES[i % len(ARCHITECTURES)]]
            for some, architectures in [(True, whole), (False, ARCHITECTURES)]:
                jobs += [(library, file, a, some, options, arguments.cuobjdump) for a in architectures]
    jobs.sort(key=lambda job: (not job[3], -job[1].stat().st_size))
    faults = []
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for what, wrong, seconds in pool.imap(check, jobs):
            print(f"{seconds:5.1f} s  {what}", flush=True)
            faults += wrong
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
