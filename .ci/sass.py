"""What the machine code of a kernel says of its accesses to memory: read from what `cuobjdump -sass` prints."""

import re
from typing import Dict, List, NamedTuple, Optional

# Most that one thread reads or writes by one instruction on every architecture.
WIDEST = 16
# Kernels for rows that are not whole vectors: neighbours are all that they can access.
WITHOUT_VECTORS = re.compile(r"_any(_|$)|_scalar(_|$)")
FUNCTION = re.compile(r"^\s*Function : (\S+)", re.M)
INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]+)\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)\s*([^;]*);", re.M)
ADDRESS = re.compile(r"\[([^][]*?)(?:\+?(-?0x[0-9a-f]+))?\]")
# What ends a run of instructions that are carried out one after the other.
JUMPS = {"BRA", "BRX", "BRXU", "JMP", "BSYNC", "CALL", "RET", "EXIT", "WARPSYNC", "BREAK"}


class Instruction(NamedTuple):
    address: int
    # With what qualifies it: STG.E.128.
    code: str
    operands: str

    @property
    def name(self) -> str:
        return self.code.split(".")[0]


class Access(NamedTuple):
    """One instruction's, to a place that is `offset` bytes from what `base` names."""

    name: str
    base: str
    offset: int
    width: int


def parse(text) -> Dict[str, List[Instruction]]:
    """The instructions of each kernel."""
    parts = FUNCTION.split(text)
    read = lambda part: [Instruction(int(at, 16), code, rest.strip()) for at, code, rest in INSTRUCTION.findall(part)]
    return {name: read(part) for name, part in zip(parts[1::2], parts[2::2])}


def width(code) -> int:
    """Bytes that a thread reads or writes."""
    words = code.split(".")
    for word, size in [("128", 16), ("64", 8), ("U16", 2), ("S16", 2), ("U8", 1), ("S8", 1)]:
        if word in words:
            return size
    return 4


def access(instruction) -> Optional[Access]:
    """Of global memory, by a thread's own load or store."""
    if instruction.name not in ("LDG", "STG"):
        return None
    # The last pair of brackets: one before it may name a descriptor.
    base, offset = ADDRESS.findall(instruction.operands)[-1]
    return Access(instruction.name, base, int(offset or "0", 16), width(instruction.code))


def registers_written(instruction):
    """As far as addresses are concerned: the first operand, and its neighbour in case it is wider than a register."""
    if instruction.name in ("STG", "STS", "STL", "ST", "RED", "BAR", "LDGSTS"):
        return set()
    first = re.match(r"(U?R)(\d+)", instruction.operands)
    return {f"{first[1]}{int(first[2]) + i}" for i in range(4 if width(instruction.code) == 16 else 2)} if first else set()


def split_accesses(instructions) -> List[str]:
    """Stores that neighbours of the same width make one after the other, where one instruction could have written both."""
    targets = {int(at, 16) for i in instructions if i.name == "BRA" for at in re.findall(r"\b0x([0-9a-f]+)", i.operands)}
    found, seen = [], {}
    for instruction in instructions:
        if instruction.address in targets:
            seen.clear()
        here = access(instruction)
        if here and here.name == "STG" and here.width < WIDEST:
            offsets = seen.setdefault(here._replace(offset=0), set())
            if {here.offset - here.width, here.offset + here.width} & offsets:
                found.append(f"{instruction.code} [{here.base}{here.offset:+#x}] at {instruction.address:#x}")
            offsets.add(here.offset)
        if instruction.name in JUMPS:
            seen.clear()
        changed = registers_written(instruction)
        for key in [key for key in seen if changed & set(re.findall(r"U?R\d+", key.base))]:
            del seen[key]
    return found


def faults(name, instructions) -> List[str]:
    """What is wrong with a kernel's accesses."""
    wrong = []
    local = sum(i.name in ("LDL", "STL") for i in instructions)
    if local:
        wrong.append(f"{local} accesses to local memory")
    split = [] if WITHOUT_VECTORS.search(name) else split_accesses(instructions)
    if split:
        wrong.append(f"{len(split)} stores could be one with their neighbour, first {split[0]}: use store_global")
    return wrong


def wide(instructions, *codes) -> int:
    """Instructions of these names that move 16 bytes."""
    return sum(i.name in codes and width(i.code) == WIDEST for i in instructions)
