"""Damaged and hostile .tflite files: always one of two errors that names the file, never a crash, hang or bomb."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from tflite_builder import TfliteBuilder

from mobilenet.errors import ModelFileError, UnsupportedOperatorError
from mobilenet.files.tflite import read_tflite

MOST_MEMORY = 64 * 2**20  # for files of a few hundred KB at most


def small_file(labels=None):
    """A net of every structure that the reader follows: conv, depthwise, pool, dense, softmax; 3 KB."""
    builder, quantised = TfliteBuilder(), {"scale": 0.05, "zero_point": 3}
    rng = np.random.default_rng(0)
    image = builder.tensor((1, 8, 8, 3), "int8", **quantised)
    weight = builder.constant(rng.integers(-9, 9, (4, 3, 3, 3)), "int8", scale=[0.01, 0.02, 0.03, 0.04])
    bias = builder.constant([1, 2, 3, 4], scale=0.05 * np.array([0.01, 0.02, 0.03, 0.04], np.float32))
    first = builder.tensor((1, 4, 4, 4), "int8", **quantised)
    builder.operator(
        "CONV_2D", [image, weight, bias], first, "Conv2DOptions", padding=0, strideW=2, strideH=2,
        dilationWFactor=1, dilationHFactor=1, fusedActivationFunction=3,
    )  # fmt: skip
    weight = builder.constant(rng.integers(-9, 9, (1, 3, 3, 4)), "int8", scale=0.02, axis=3)
    bias = builder.constant([1, 2, 3, 4], scale=0.001)
    second = builder.tensor((1, 4, 4, 4), "int8", **quantised)
    builder.operator(
        "DEPTHWISE_CONV_2D", [first, weight, bias], second, "DepthwiseConv2DOptions", padding=0, strideW=1,
        strideH=1, depthMultiplier=1, dilationWFactor=1, dilationHFactor=1,
    )  # fmt: skip
    pooled = builder.tensor((1, 1, 1, 4), "int8", **quantised)
    builder.operator(
        "AVERAGE_POOL_2D", [second], pooled, "Pool2DOptions", padding=1, strideW=1, strideH=1, filterWidth=4,
        filterHeight=4,
    )  # fmt: skip
    weight, logits = (
        builder.constant(np.ones((2, 4)), "int8", scale=0.02),
        builder.tensor((1, 2), "int8", **quantised),
    )
    builder.operator("FULLY_CONNECTED", [pooled, weight], logits, "FullyConnectedOptions")
    out = builder.tensor((1, 2), "int8", scale=1 / 256, zero_point=-128)
    builder.operator("SOFTMAX", [logits], out, "SoftmaxOptions", beta=1.0)
    data = builder.finish([image], [out])
    return data if labels is None else data + packed({"labels.txt": labels})


def packed(files, method=zipfile.ZIP_STORED):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as writer:
        for name, text in files.items():
            writer.writestr(name, text)
    return archive.getvalue()


def read(tmp_path, data):
    """What `read_tflite` says of these bytes: contents, or one of the two errors, which names the file."""
    path = tmp_path / "hostile.tflite"
    path.write_bytes(data)
    try:
        return read_tflite(path)
    except (ModelFileError, UnsupportedOperatorError) as error:
        assert "hostile.tflite" in str(error)
        assert "\n" not in str(error)
        assert len(str(error)) < 2000
        return error


def read_bounded(tmp_path, data):
    """`read`, and little memory is asked for meanwhile."""
    tracemalloc.start()
    try:
        result = read(tmp_path, data)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()
    return result


def test_the_small_file_is_read(tmp_path):
    contents = read(tmp_path, small_file(b"cat\ndog"))
    assert contents.labels == ("cat", "dog")
    assert contents.task == "classify"


def test_truncated_anywhere(tmp_path):
    data = small_file()
    for end in [*range(0, 200), *range(200, len(data) - 1, 7)]:
        assert isinstance(read(tmp_path, data[:end]), (ModelFileError, UnsupportedOperatorError)), end


def test_a_flipped_bit(tmp_path):
    data, flips = small_file(b"cat\ndog"), random.Random(1)
    positions = flips.sample(range(len(data)), 800)
    read_well = 0
    for position in positions:
        damaged = bytearray(data)
        damaged[position] ^= 1 << flips.randrange(8)
        read_well += not isinstance(read(tmp_path, bytes(damaged)), Exception)
    assert read_well < len(positions)


def test_many_flipped_bytes(tmp_path):
    data, flips = small_file(b"cat\ndog"), random.Random(2)
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(flips.randrange(2, 30)):
            damaged[flips.randrange(len(data))] = flips.choice((0, 1, 0x7F, 0x80, 0xFF, flips.randrange(256)))
        read(tmp_path, bytes(damaged))


def test_offsets_replaced_by_extremes(tmp_path):
    data, choices = small_file(), random.Random(5)
    for position in range(0, len(data) - 4, 4):
        value = choices.choice((0, 1, 4, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data) - position))
        damaged = data[:position] + struct.pack("<I", value) + data[position + 4 :]
        (read_bounded if position % 40 == 0 else read)(tmp_path, damaged)


def test_an_official_file_damaged(tmp_path, shared):
    data = (shared / "weights/coral/mobilenet_v1_0.25_128_quant.tflite").read_bytes()
    flips = random.Random(3)
    for _ in range(15):
        assert isinstance(read(tmp_path, data[: flips.randrange(len(data) - 30_000)]), ModelFileError)
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(20):  # the structure is in the last 60 KB before the labels, and at the start
            damaged[flips.randrange(len(data) - 90_000, len(data) - 22_000)] ^= 1 << flips.randrange(8)
        read(tmp_path, bytes(damaged))


@pytest.mark.parametrize(
    "data", [b"", b"TFL3", b"\0" * 4 + b"TFL3", b"\x04\0\0\0TFL3", b"\xff" * 4 + b"TFL3" + b"\0" * 64]
)
def test_next_to_nothing(tmp_path, data):
    assert isinstance(read(tmp_path, data), ModelFileError)


def test_a_vtable_that_is_its_own_table(tmp_path):
    """A table whose vtable distance is 0: the table is read as its vtable."""
    data = struct.pack("<I4sIHHHH", 8, b"TFL3", 0, 12, 12, 4, 4) + b"\0" * 64
    assert isinstance(read(tmp_path, data), ModelFileError)


def root_with(*vectors):
    """The root table of a model: the version, and fields from 1 on that point forward to raw bytes."""
    count = 1 + len(vectors)
    vtable = struct.pack(f"<{2 + count}H", 4 + 2 * count, 4 + 4 * count, *range(4, 4 + 4 * count, 4))
    vtable += b"\0" * (-len(vtable) % 4)
    fields, body = struct.pack("<I", 3), b""
    for i, vector in enumerate(vectors):
        fields += struct.pack("<I", 4 * (len(vectors) - i) + len(body))
        body += vector
    return struct.pack("<I4s", 8 + len(vtable), b"TFL3") + vtable + struct.pack("<i", len(vtable)) + fields + body


EMPTY = struct.pack("<I", 0)


@pytest.mark.parametrize("count", [1, 2**15 + 1, 2**20, 2**30, 2**32 - 1])
def test_vectors_that_claim_to_be_huge(tmp_path, count):
    huge = struct.pack("<I", count) + b"\0" * 64
    error = read_bounded(tmp_path, root_with(EMPTY, huge, EMPTY, EMPTY))
    assert "damaged" in str(error) or "subgraphs" in str(error)


def test_many_subgraphs_that_are_one(tmp_path):
    """A vector of 100,000 tables that are one: refused by its length."""
    count = 100_000
    offsets = (struct.pack("<I", 4 * (count - i) + 4) for i in range(count))
    table = struct.pack("<HHi", 4, 4, 4)  # the vtable, then the table that is nothing but the way back to it
    vector = struct.pack("<I", count) + b"".join(offsets) + table
    error = read_bounded(tmp_path, root_with(EMPTY, vector))
    assert "100000 subgraphs" in str(error)


def test_operators_that_share_one_large_constant(tmp_path):
    """A small file cannot ask for the memory of its weights a thousand times: each use is a copy."""
    builder = TfliteBuilder()
    image = value = builder.tensor((1, 256), "float32")
    weight = builder.constant(np.zeros((256, 256)), "int8", scale=0.5)
    for _ in range(2000):
        after = builder.tensor((1, 256), "float32")
        value = builder.operator("FULLY_CONNECTED", [value, weight], after, "FullyConnectedOptions")
    error = read_bounded(tmp_path, builder.finish([image], [value]))
    assert isinstance(error, ModelFileError)
    assert "many times the size" in str(error)


def test_shapes_that_are_huge(tmp_path):
    for shape in ((1, 2**31 - 1, 2**31 - 1, 3), (1, 2**20, 2**10, 3), (1, -5, 4, 3), (1,) * 9, (1, 0, 4, 3)):
        builder = TfliteBuilder()
        image, out = builder.tensor(shape), builder.tensor(shape)
        builder.operator("RELU", [image], out)
        assert isinstance(read_bounded(tmp_path, builder.finish([image], [out])), ModelFileError), shape


def test_scales_that_are_no_scales(tmp_path):
    for scale in (0.0, -1.0, float("nan"), float("inf"), 1e-45):
        builder = TfliteBuilder()
        image, out = (builder.tensor((1, 4, 4, 3), "uint8", scale=scale) for _ in range(2))
        builder.operator("RELU6", [image], out)
        assert isinstance(read(tmp_path, builder.finish([image], [out])), ModelFileError), scale


def test_zero_points_out_of_range(tmp_path):
    for dtype, zero_point in (("uint8", -1), ("int8", 128), ("int8", 2**62)):
        builder = TfliteBuilder()
        image, out = (builder.tensor((1, 4, 4, 3), dtype, scale=1, zero_point=zero_point) for _ in range(2))
        builder.operator("RELU", [image], out)
        assert isinstance(read(tmp_path, builder.finish([image], [out])), ModelFileError)


def test_tensors_written_twice_read_too_early_or_never(tmp_path):
    for order in ([(0, 1), (0, 1)], [(2, 1), (0, 2)], [(0, 2)], [(0, 0)]):
        builder = TfliteBuilder()
        for _ in range(3):
            builder.tensor((1, 4, 4, 3))
        for source, target in order:
            builder.operator("RELU", [source], target)
        assert isinstance(read(tmp_path, builder.finish([0], [1])), ModelFileError), order


def test_a_stated_shape_that_is_wrong(tmp_path):
    builder = TfliteBuilder()
    image, out = builder.tensor((1, 4, 4, 3)), builder.tensor((1, 4, 5, 3))
    builder.operator("RELU", [image], out)
    error = read(tmp_path, builder.finish([image], [out]))
    assert "(4, 4, 3)" in str(error)
    assert "(4, 5, 3)" in str(error)


def test_packed_labels_are_bounded(tmp_path):
    bomb = packed({"labels.txt": b"a" * 50_000_000}, zipfile.ZIP_DEFLATED)
    assert "50000000 bytes" in str(read_bounded(tmp_path, small_file() + bomb))
    size = struct.pack("<I", 50_000_000)
    liar = bomb.replace(size, struct.pack("<I", 4000))  # the directory says 4,000 bytes, the data go on
    assert "is not as its directory says" in str(read_bounded(tmp_path, small_file() + liar))
    many = packed({f"{i}.txt": "x" for i in range(100)})
    assert "100 files" in str(read(tmp_path, small_file() + many))


def test_packed_labels_that_are_compressed_or_several(tmp_path):
    deflated = packed({"labels.txt": "cat\ndog"}, zipfile.ZIP_DEFLATED)
    assert read(tmp_path, small_file() + deflated).labels == ("cat", "dog")
    chosen = packed({"labels.txt": "cat\ndog", "notes.txt": "no", "x.json": "{}"})
    assert read(tmp_path, small_file() + chosen).labels == ("cat", "dog")
    unclear = packed({"a.txt": "cat\ndog", "b.txt": "no"})
    assert "several" in str(read(tmp_path, small_file() + unclear))
    bzip2 = packed({"labels.txt": "cat\ndog"}, zipfile.ZIP_BZIP2)
    assert "method 12" in str(read(tmp_path, small_file() + bzip2))


def test_a_wrong_number_of_packed_labels_says_both(tmp_path):
    error = str(read(tmp_path, small_file(b"cat\ndog\nowl")))
    assert "2 outputs" in error
    assert "are 3" in error


def test_packed_labels_damaged_anywhere(tmp_path):
    data, flips = small_file(b"cat\ndog"), random.Random(4)
    start = len(small_file())
    for position in range(start, len(data)):
        damaged = bytearray(data)
        damaged[position] = flips.randrange(256)
        read(tmp_path, bytes(damaged))
    for end in range(start, len(data)):
        read(tmp_path, data[:end])
