"""The kernels as they are compiled for cards that are not here, at the shapes that medium and large launch."""

from dataclasses import replace

import pytest

from looper.runtime import paths
from testkit import checkpoints

MOST_REGISTERS = 128  # of a thread: four blocks of 128 threads share a processor's 65,536


@pytest.fixture(scope="module")
def compiled(triton_here):
    from testkit.compiled_kernels import compile_for
    from testkit.kernel_launches import distinct, launches

    def all_of(shape, architecture, only=None):
        records, _ = launches(replace(shape, num_layers=2), 32, architecture // 10)
        wanted = (r for r in distinct(records) if only is None or r.kernel.__name__ == only)
        return [compile_for(record, architecture) for record in wanted]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(paths.PROJECT / ".cache" / "triton"))
        patch.delenv("TRITON_INTERPRET", raising=False)
        made = {("medium", a): all_of(checkpoints.MEDIUM, a) for a in (80, 89, 90)}
        made["large", 90] = all_of(checkpoints.LARGE, 90, only="product")
        yield made


@pytest.mark.parametrize("made_for", [("medium", 80), ("medium", 89), ("medium", 90), ("large", 90)], ids=str)
def test_kernels_compile_without_spills_and_with_few_registers(compiled, made_for):
    kernels = compiled[made_for]
    assert len(kernels) == (5 if made_for[0] == "large" else 13)
    for kernel in kernels:
        assert kernel.stack == kernel.local == 0, kernel
        assert kernel.registers <= MOST_REGISTERS, kernel
        assert kernel.shared <= 99 << 10, kernel  # what a block may have on an L40S


@pytest.mark.parametrize("made_for", [("medium", 80), ("medium", 89), ("medium", 90), ("large", 90)], ids=str)
def test_products_use_tensor_cores_and_copy_asynchronously(compiled, made_for):
    products = [kernel for kernel in compiled[made_for] if kernel.name.startswith("product")]
    assert len(products) == 5
    for kernel in products:
        assert kernel.tensor_cores and kernel.async_copies, kernel


def test_self_attention_copies_asynchronously(compiled):
    for architecture in (80, 89, 90):
        (kernel,) = (k for k in compiled["medium", architecture] if k.name.startswith("self_attention"))
        assert kernel.async_copies, kernel
