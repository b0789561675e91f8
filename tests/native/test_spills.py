"""The hot loops of the matrix kernels keep their sums in registers.

A compiler that runs out of registers puts some on the stack, and the loop then runs at half its speed while every
answer stays right. So the files of native/src/isa are compiled as the build does, disassembled, and searched for
the innermost loops that multiply: none may touch the stack.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "native"
CMAKE = (NATIVE / "CMakeLists.txt").read_text()

# What multiplies in a matrix kernel, and how many times at least in the loop of its largest tile.
MULTIPLIES = {
    "scalar": {"mulps": 8, "pmaddwd": 8},
    "avx2": {"vfmadd231ps": 12, "vpmaddwd": 12},
    "avx2vnni": {"vpdpbusd": 12},
    "avx512vnni256": {"vpdpbusd": 12},
    "avx512": {"vfmadd231ps": 14},
    "avx512vnni": {"vpdpbusd": 14},
    "avx512bf16": {"vdpbf16ps": 14},
}


class Instruction(NamedTuple):
    address: int
    name: str
    operands: str

    @property
    def target(self):
        """Where a jump goes, or None."""
        found = re.match(r"([0-9a-f]+) <", self.operands)
        return int(found[1], 16) if self.name.startswith("j") and found else None


def instruction_sets():
    """Name -> flags of all sets of x86, as the build has them."""
    lines = re.findall(r'"(any|x86)\s+(\w+)([^"]*)"', CMAKE)
    return {name: flags.split() for _, name, flags in lines if (NATIVE / f"src/isa/{name}.cc").exists()}


def common_flags():
    found = re.search(r"set\(FLAGS ([^)]*)\)", CMAKE)
    assert found, "native/CMakeLists.txt no longer says set(FLAGS ...)"
    return ["-std=c++20", "-O3", "-fPIC", *found[1].split()]


def compilers():
    named = [os.environ["CXX"]] if os.environ.get("CXX") else []
    found = [name for name in (*named, "g++", "clang++", "clang++-16") if shutil.which(name)]
    return found or ["c++"]


@cache
def macros(compiler):
    """What the compiler defines: says which processor it is for."""
    try:
        return subprocess.run(
            [compiler, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def disassemble(compiler, source, flags, folder):
    """Functions by name, each a list of instructions; skips where a tool is absent."""
    if not shutil.which("objdump"):
        pytest.skip("objdump is absent")
    if "__x86_64__" not in macros(compiler):
        pytest.skip(f"{compiler} is absent or not for x86-64")
    made = folder / f"{source.stem}.o"
    command = [
        compiler,
        *common_flags(),
        *flags,
        "-I",
        str(NATIVE / "src/isa"),
        "-c",
        str(source),
        "-o",
        str(made),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if re.search("(unrecognized|unknown).*argument|unrecognized command-line", done.stderr):
        pytest.skip(f"{compiler} does not know {' '.join(flags)}")
    assert done.returncode == 0, done.stderr
    text = subprocess.run(
        ["objdump", "-d", "-C", "--no-show-raw-insn", "-w", str(made)], capture_output=True, text=True, check=True
    ).stdout
    functions = {}
    for line in text.splitlines():
        if header := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            code = functions.setdefault(f"{header[1]} {len(functions)}", [])
        elif found := re.match(r"\s+([0-9a-f]+):\s+(?:\{\w+\} )?(\S+)\s*(.*)", line):
            code.append(Instruction(int(found[1], 16), found[2], found[3]))
    return functions


def basic_blocks(code):
    """Blocks of instructions, and for each the numbers of those that may follow."""
    starts = {code[0].address} | {i.target for i in code if i.target is not None}
    starts |= {b.address for a, b in pairwise(code) if a.name.startswith(("j", "ret"))}
    blocks, number = [], {}
    for instruction in code:
        if instruction.address in starts:
            number[instruction.address] = len(blocks)
            blocks.append([])
        blocks[-1].append(instruction)
    after = []
    for i, block in enumerate(blocks):
        last = block[-1]
        nexts = [number[last.target]] if last.target in number else []
        if not last.name.startswith(("jmp", "ret")) and i + 1 < len(blocks):
            nexts.append(i + 1)
        after.append(nexts)
    return blocks, after


def cycles(nodes, after):
    """Sets of nodes that can all reach one another (Tarjan), without single nodes that do not reach themselves."""
    order, low, stack, waiting, found = {}, {}, [], set(), []
    for root in nodes:
        work = [(root, iter(after[root]))] if root not in order else []
        while work:
            node, following = work[-1]
            if node not in order:
                order[node] = low[node] = len(order)
                stack.append(node)
                waiting.add(node)
            for other in following:
                if other in nodes and other not in order:
                    work.append((other, iter(after[other])))
                    break
                if other in waiting:
                    low[node] = min(low[node], order[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == order[node]:
                    part = set(stack[stack.index(node) :])
                    del stack[stack.index(node) :]
                    waiting -= part
                    if len(part) > 1 or node in after[node]:
                        found.append(part)
    return found


def innermost(nodes, after):
    """The loops that have no loop inside."""
    loops = []
    for part in cycles(nodes, after):
        entries = {b for a in range(len(after)) if a not in part for b in after[a] if b in part}
        inner = innermost(part - (entries or {min(part)}), after)
        loops += inner or [part]
    return loops


def matrix_loops(functions, multiply):
    """(function, instructions) of every innermost loop with this multiply in a matrix kernel."""
    for name, code in functions.items():
        if "Gemm" not in name.split("(")[0] or not any(i.name == multiply for i in code):
            continue
        blocks, after = basic_blocks(code)
        for loop in innermost(set(range(len(blocks))), after):
            body = [i for b in sorted(loop) for i in blocks[b]]
            if any(i.name == multiply for i in body):
                yield name, body


def stack_uses(function, body):
    """The instructions of a loop that read or write the stack."""
    frame = any(i.name == "mov" and i.operands == "%rsp,%rbp" for i in function)
    place = re.compile(r"\(%r[sb]p" if frame else r"\(%rsp")
    return [
        f"{i.name} {i.operands}" for i in body if place.search(i.operands) or i.name in ("push", "pop", "call")
    ]


def spills(functions, multiply):
    return [use for name, body in matrix_loops(functions, multiply) for use in stack_uses(functions[name], body)]


@pytest.mark.parametrize("compiler", compilers())
@pytest.mark.parametrize("name", instruction_sets())
def test_matrix_loops_do_not_touch_the_stack(name, compiler, tmp_path):
    assert name in MULTIPLIES, f"say in MULTIPLIES what multiplies in {name}.cc"
    source = NATIVE / f"src/isa/{name}.cc"
    functions = disassemble(compiler, source, instruction_sets()[name], tmp_path)
    for multiply, least in MULTIPLIES[name].items():
        loops = list(matrix_loops(functions, multiply))
        largest = max((sum(i.name == multiply for i in body) for _, body in loops), default=0)
        assert largest >= least, f"the loop of the largest tile was not found: at most {largest} {multiply}"
        found = {}
        for function, body in loops:
            if uses := stack_uses(functions[function], body):
                found[function] = uses
        assert not found, f"{compiler}, {name}: {found}"


@pytest.mark.parametrize("compiler", compilers())
def test_a_tile_that_is_too_large_is_found(compiler, tmp_path):
    """Twelve pixels by sixteen channels are 24 sums; AVX2 has 16 registers."""
    text = (NATIVE / "src/isa/avx2.cc").read_text()
    enlarged = text.replace("MAX_PIXELS = 6", "MAX_PIXELS = 12")
    assert enlarged != text
    source = tmp_path / "enlarged.cc"
    source.write_text(enlarged.replace('"../', f'"{NATIVE}/src/'))
    functions = disassemble(compiler, source, instruction_sets()["avx2"], tmp_path)
    assert spills(functions, "vfmadd231ps")
