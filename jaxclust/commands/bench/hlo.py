"""Reading a compiled program's text: its computations, their instructions, and the arrays that these make."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")  # f32[2,3], bf16[4], pred[8]
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\S.*?) ([a-z][\w\-]*)\(([^)]*)\)(.*)$")


class Array(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    bits: int  # of an element

    @property
    def bytes(self) -> int:
        return self.bits * math.prod(self.shape) // 8

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class Instruction(NamedTuple):
    name: str
    makes: tuple[Array, ...]  # several for a tuple
    kind: str  # fusion, custom-call, copy, ...
    operands: tuple[str, ...]  # the names of what it reads; of a parameter and a constant, the text in brackets
    attributes: str  # the rest of its line

    @property
    def bytes(self) -> int:
        return sum(a.bytes for a in self.makes)


def lines(text: str) -> dict[str, list[str]]:
    """The lines of each computation, by its name; the entry is the last one in a program's text."""
    bodies, inside = {}, ""
    for line in text.splitlines():
        if header := COMPUTATION.match(line):
            inside = header[1]
            bodies[inside] = []
        elif inside:
            bodies[inside].append(line)
    return bodies


def arrays(type: str) -> Iterator[Array]:
    """The arrays of a type such as (f32[2,3], s32[])."""
    for dtype, bits, extents in ARRAY.findall(type):
        yield Array(dtype, tuple(int(d) for d in extents.split(",") if d), int(bits or 8))


def instructions(body: list[str]) -> dict[str, Instruction]:
    """The instructions of a computation by their names, in order; the last one is its root."""
    found = {}
    for line in body:
        if part := INSTRUCTION.match(line):
            name, type, kind, operands, attributes = part.groups()
            read = tuple(o.strip().removeprefix("%") for o in re.sub(r"/\*.*?\*/", "", operands).split(","))
            found[name] = Instruction(name, tuple(arrays(type)), kind, read, attributes)
    return found
