import ctypes
from pathlib import Path

import pytest
import torch

from looper.runtime import memory

CPU = torch.device("cpu")


@pytest.fixture
def group(tmp_path, monkeypatch):
    """A control group's folder, on a machine with 8 GiB free."""
    (tmp_path / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n")
    monkeypatch.setattr(memory, "MEMORY_FILE", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("limit", "used", "free"),
    [
        ("max", "1000", 8 << 30),
        (str(3 << 30), str(1 << 30), 2 << 30),
        (str(64 << 30), str(1 << 30), 8 << 30),
        (str(1 << 30), str(2 << 30), 0),
        ("nonsense", "1", 8 << 30),
        (None, None, 8 << 30),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_free_memory_is_the_machines_or_what_the_container_leaves(group, version, limit, used, free):
    (group / "memory").mkdir()
    names = (
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")
        if version == 1
        else ("memory.max", "memory.current")
    )
    for name, text in zip(names, (limit, used), strict=True):
        if text is not None:
            (group / name).write_text(text + "\n")
    assert memory.free_bytes(CPU) == free


def test_cached_files_count_as_free(group):
    (group / "memory.max").write_text(str(3 << 30))
    (group / "memory.current").write_text(str(3 << 30))
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {1 << 30}\nactive_file 7\n")
    assert memory.free_bytes(CPU) == 1 << 30


def test_without_a_word_of_the_machine_a_modest_amount_is_assumed(group):
    (group / "meminfo").unlink()
    assert memory.free_bytes(CPU) == 4 << 30


def test_freed_memory_goes_back_to_the_system():
    resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    libc = ctypes.CDLL("libc.so.6")
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    size = 60_000  # below what malloc maps by itself
    held = [libc.malloc(size) for _ in range(3000)]
    for piece in held:
        ctypes.memset(piece, 1, size)
    for piece in held[:-1]:
        libc.free(piece)
    before = resident()
    memory.return_memory()
    assert resident() < before - 1000 * size
    libc.free(held[-1])


def test_another_c_library_is_no_error(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    memory.tune_malloc()
    memory.return_memory()
