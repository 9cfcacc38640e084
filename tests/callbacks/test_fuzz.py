"""Records whose bytes were changed: an error that says so, or a record; no crash, no pickle, no flood of memory."""

from __future__ import annotations

import io
import resource
import zipfile

import numpy as np
import pytest

from cam_callbacks import Record, RecordError, RecordStore


@pytest.fixture
def good() -> bytes:
    maps = {("gradcam", f"layer{i}"): np.random.default_rng(i).random((6, 5, 5), np.float32) for i in range(2)}
    per_image = {"entropy/gradcam": np.linspace(0, 1, 6)}
    record = Record(3, 2, 17, {"cam/entropy/gradcam": 0.5}, maps, per_image, predictions=np.arange(6))
    return record.to_bytes()


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes flipped, cut out, doubled or replaced, the end cut off; or a file inside changed, with its checksum made right."""
    kind = rng.integers(6)
    at = int(rng.integers(len(data)))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at + int(rng.integers(1, 50)) :]
    if kind == 2:
        return data[:at] + data[at : at + 50] + data[at:]
    if kind == 3:
        changed = bytearray(data)
        for place in rng.integers(len(data), size=int(rng.integers(1, 8))):
            changed[place] = int(rng.integers(256))
        return bytes(changed)
    if kind == 4:
        return rng.bytes(int(rng.integers(200)))
    return repacked(data, rng)


def repacked(data: bytes, rng: np.random.Generator) -> bytes:
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    names = source.namelist()
    chosen = names[int(rng.integers(len(names)))]
    with zipfile.ZipFile(target, "w") as file:
        for name in names:
            content = bytearray(source.read(name))
            if name == chosen:
                for place in rng.integers(len(content), size=3):
                    content[place] = int(rng.integers(256))
            file.writestr(name, bytes(content))
    return target.getvalue()


def read_many(good: bytes, n: int, seed: int) -> tuple[int, int]:
    """How many of ``n`` mutated records could be read, and how many were refused."""
    rng = np.random.default_rng(seed)
    read = refused = 0
    for _ in range(n):
        try:
            record = Record.from_bytes(mutated(good, rng), "fuzzed")
        except RecordError:
            refused += 1
        else:
            read += 1
            assert all(isinstance(maps, np.ndarray) and maps.dtype != object for maps in record.maps.values())
    return read, refused


def test_hundreds_of_mutated_records(good):
    read, refused = read_many(good, 400, 0)
    assert refused > 200 and read + refused == 400


@pytest.mark.soak
def test_ten_thousand_mutated_records(good):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read, refused = read_many(good, 10_000, 1)
    assert refused > 5_000 and read + refused == 10_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024, "KiB"


def test_a_small_file_that_claims_to_be_large_takes_no_memory(tmp_path):
    """A header of 128 bytes may promise terabytes, and zip may keep them in kilobytes."""
    with zipfile.ZipFile(tmp_path / "look-000000.npz", "w", zipfile.ZIP_DEFLATED) as file:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**42,)})
        file.writestr("header.npy", header.getvalue() + bytes(100))
    with pytest.raises(RecordError, match="damaged"):
        RecordStore(tmp_path)[0]
    with zipfile.ZipFile(tmp_path / "look-000000.npz", "w", zipfile.ZIP_DEFLATED) as file:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**31,)})
        with file.open("header.npy", "w", force_zip64=True) as inside:
            inside.write(header.getvalue())
            for _ in range(2**11):
                inside.write(bytes(2**20))
    with pytest.raises(RecordError, match="unpacks to 2048 MiB"):
        RecordStore(tmp_path)[0]


def test_no_name_inside_a_file_leads_out_of_the_folder(tmp_path, good):
    """Records are read by name from memory: nothing is ever unpacked to disk."""
    source, target = zipfile.ZipFile(io.BytesIO(good)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for name in source.namelist():
            file.writestr(name, source.read(name))
        file.writestr("../../owned.npy", b"x")
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "look-000000.npz").write_bytes(target.getvalue())
    assert RecordStore(tmp_path / "r")[0].look == 3
    assert [p.name for p in tmp_path.iterdir()] == ["r"]
