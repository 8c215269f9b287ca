"""The kernels as they are compiled for cards that are not here, at the shapes that medium and large launch."""

import re
from functools import cache

import pytest

from looper.runtime import paths
from testkit import checkpoints

MOST_REGISTERS = 128  # of a thread: four blocks of 128 threads share a processor's 65,536
ASYNC_COPY = r"\b(LDGSTS|UTMALDG|UBLKCP)"  # in machine code
PRODUCTS = 6  # q, k and v; out of attention; q of the text; up; down; the heads


@pytest.fixture(scope="module")
def compiled(triton_here):
    """What was compiled for a model and an architecture, each once."""
    from testkit.compiled_kernels import compile_for
    from testkit.kernel_launches import distinct, launches, two_layers

    shapes = {"medium": checkpoints.MEDIUM, "large": checkpoints.LARGE}

    @cache
    def made(name, architecture):
        records = distinct(launches(two_layers(shapes[name]), 32, architecture // 10)[0])
        # large's others differ from medium's in widths alone
        wanted = (r for r in records if name == "medium" or r.kernel.__name__ == "product")
        return [compile_for(record, architecture) for record in wanted]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(paths.PROJECT / ".cache" / "triton"))
        patch.delenv("TRITON_INTERPRET", raising=False)
        yield made


@pytest.mark.parametrize("made_for", [("medium", 80), ("medium", 89), ("medium", 90), ("large", 90)], ids=str)
def test_kernels_compile_without_spills_and_with_few_registers(compiled, made_for):
    kernels = compiled(*made_for)
    assert len(kernels) == (PRODUCTS if made_for[0] == "large" else PRODUCTS + 7)
    for kernel in kernels:
        assert kernel.stack == kernel.local == 0, kernel
        assert kernel.registers <= MOST_REGISTERS, kernel
        assert kernel.shared <= 99 << 10, kernel  # what a block may have on an L40S


@pytest.mark.parametrize("made_for", [("medium", 80), ("medium", 89), ("medium", 90), ("large", 90)], ids=str)
def test_products_use_tensor_cores_and_copy_asynchronously(compiled, made_for):
    products = [kernel for kernel in compiled(*made_for) if kernel.name.startswith("product")]
    assert len(products) == PRODUCTS
    for kernel in products:
        assert kernel.tensor_cores and kernel.async_copies, kernel
    code = products[0].disassembled()
    assert re.search(r"\bH?G?MMA\.", code) and re.search(ASYNC_COPY, code)


def test_self_attention_copies_asynchronously(compiled):
    for architecture in (80, 89, 90):
        (kernel,) = (k for k in compiled("medium", architecture) if k.name.startswith("self_attention"))
        assert kernel.async_copies and re.search(ASYNC_COPY, kernel.disassembled()), kernel
