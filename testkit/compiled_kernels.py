"""Compile the step's kernels for cards that are not here, and read off what they use.

python -m testkit.compiled_kernels                # a table of registers by architecture, for medium and large
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from testkit import checkpoints
from testkit.kernel_launches import LaunchRecord, distinct, launches, two_layers

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
ARCHITECTURES = (80, 89, 90)
TYPES = {torch.float16: "fp16", torch.float32: "fp32", torch.int64: "i64", torch.bool: "i1"}


@dataclass(frozen=True)
class Compiled:
    """What a cubin says of itself.

    Attributes
    ----------
    name : str
    architecture : int
    registers, stack, local, shared : int
        Registers of a thread, and bytes; stack and local memory are spills.
    ptx : str
        What it was assembled from.
    cubin : bytes
    """

    name: str
    architecture: int
    registers: int
    stack: int
    local: int
    shared: int
    ptx: str = field(repr=False)
    cubin: bytes = field(repr=False)

    @property
    def tensor_cores(self) -> bool:
        """Whether it asks for them: there is nothing else that the assembler could make of it."""
        return bool(re.search(r"\b(mma\.sync|wgmma\.mma_async)", self.ptx))

    @property
    def async_copies(self) -> bool:
        """Whether it asks for them."""
        return bool(re.search(r"\bcp\.async\.(c[ag]|bulk)", self.ptx))

    def disassembled(self) -> str:
        """Its machine code, which takes longer to read than to make."""
        with _in_a_file(self.cubin) as name:
            return _tool("nvdisasm", "-c", name)


def compile_for(record: LaunchRecord, architecture: int) -> Compiled:
    """Compile a launch as Triton would on a card of some architecture."""
    names = record.kernel.arg_names
    given = dict(zip((name for name in names if name not in record.constants), record.args, strict=True))
    signature = {name: _type(given[name]) if name in given else "constexpr" for name in names}
    # what Triton finds out at a launch: which arguments are multiples of 16; not for the number of rows
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if name in given and name != "rows" and _is_aligned(given[name])
    }
    source = ASTSource(record.kernel, signature, record.constants, aligned)
    options: dict[str, Any] = {"num_warps": record.warps, "num_stages": record.stages}
    if record.constants["PDL"]:
        options["launch_pdl"] = True
    made = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    with _in_a_file(made.asm["cubin"]) as name:
        usage = _tool("cuobjdump", "-res-usage", name)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    assert found, usage
    registers, stack, local = map(int, found.groups())
    return Compiled(
        record.name,
        architecture,
        registers,
        stack,
        local,
        made.metadata.shared,
        made.asm["ptx"],
        made.asm["cubin"],
    )


@contextmanager
def _in_a_file(cubin: bytes) -> Iterator[str]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        yield file.name


def _type(value: Any) -> str:
    if torch.is_tensor(value):
        return f"*{TYPES[value.dtype]}"
    return "fp32" if isinstance(value, float) else "i32"


def _is_aligned(value: Any) -> bool:
    return torch.is_tensor(value) or (isinstance(value, int) and value % 16 == 0)


def _tool(name: str, *args: str) -> str:
    return subprocess.run([TOOLS / name, *args], capture_output=True, text=True, check=True).stdout


def main() -> None:
    os.environ.setdefault("TRITON_CACHE_DIR", tempfile.mkdtemp())
    for name, shape in (("medium", checkpoints.MEDIUM), ("large", checkpoints.LARGE)):
        print(f"{name}: registers, and bytes of shared memory, by architecture")
        by_capability = {
            major: distinct(launches(two_layers(shape), 32, major)[0])
            for major in {a // 10 for a in ARCHITECTURES}
        }
        for place, record in enumerate(by_capability[9]):
            found = [compile_for(by_capability[a // 10][place], a) for a in ARCHITECTURES]
            cells = "  ".join(f"sm_{c.architecture} {c.registers:3} {c.shared:6}" for c in found)
            told = f"{'tensor cores ' * found[0].tensor_cores}{'async copies' * found[0].async_copies}"
            print(f"{record.name:34} {cells}  {told}", flush=True)


if __name__ == "__main__":
    main()
