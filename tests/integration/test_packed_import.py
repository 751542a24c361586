"""Rows of embedding tables beside those of others: encoders give the bytes of PyTorch's packers, tables that arrive packed score as the
numbers that they stand for. Checkpoints are the reference models' with their tables packed by PyTorch, or by hand as FBGEMM lays them out."""

import json
import struct
import subprocess
import unittest

import numpy

import rankd_fixture as fixture
from oracle import Oracle, decode_rows, stored_rows

try:
    import torch
except ImportError:  # the tests that need it are reported as skipped
    torch = None

needs_torch = unittest.skipUnless(torch, "python3-torch is not installed")
ENCODE_ROWS = fixture.BUILD / "tests/integration/encode_rows"
PACKERS = {"int8": "byte", "int4": "4bit", "int2": "2bit"}
BITS = {"int8": 8, "int4": 4, "int2": 2}
TOLERANCE = 1e-5  # of max(1, |logit|)
DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "u1"}


def generator():
    return numpy.random.default_rng(fixture.seed())


def read_safetensors(path):
    data = path.read_bytes()
    header_bytes = struct.unpack("<Q", data[:8])[0]
    header, rest = json.loads(data[8:8 + header_bytes]), data[8 + header_bytes:]
    return {name: numpy.frombuffer(rest[slice(*entry["data_offsets"])], DTYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in header.items() if name != "__metadata__"}


def write_safetensors(path, tensors):
    header, end = {}, 0
    for name, value in tensors.items():
        dtype = next(key for key, kind in DTYPES.items() if numpy.dtype(kind) == value.dtype)
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [end, end + value.nbytes]}
        end += value.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(value.tobytes() for value in tensors.values()))


def pack_like_torch(row_format, numbers):
    packer = getattr(torch.ops.quantized, f"embedding_bag_{PACKERS[row_format]}_prepack")
    return packer(torch.tensor(numpy.ascontiguousarray(numbers))).numpy()


def unpack_like_torch(row_format, packed):
    return getattr(torch.ops.quantized, f"embedding_bag_{PACKERS[row_format]}_unpack")(torch.tensor(packed)).numpy()


def pack_by_hand(row_format, numbers, padding, rng):
    """float16 scale and bias in front, elements, padding that must not matter; and the numbers that these rows stand for."""
    bits = BITS[row_format]
    low = numbers.min(axis=1, keepdims=True).astype(numpy.float16)
    scale = ((numbers.max(axis=1, keepdims=True) - low) / (2 ** bits - 1)).astype(numpy.float16)
    scale[scale == 0] = 1
    codes = numpy.clip(numpy.rint((numbers - low) / scale.astype(numpy.float32)), 0, 2 ** bits - 1).astype(numpy.uint8)
    per_byte = 8 // bits
    filled = numpy.pad(codes, ((0, 0), (0, -codes.shape[1] % per_byte)))
    elements = sum(filled[:, i::per_byte] << (bits * i) for i in range(per_byte)).astype(numpy.uint8)
    rest = rng.integers(0, 256, (len(numbers), padding), dtype=numpy.uint8)
    packed = numpy.concatenate([scale.view(numpy.uint8), low.view(numpy.uint8), elements, rest], axis=1)
    return packed, codes * scale.astype(numpy.float64) + low.astype(numpy.float64)


def bfloat16(numbers):
    bits = numpy.ascontiguousarray(numbers).view(numpy.uint32).astype(numpy.uint64)
    return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype("<u2")


class TestEncoders(unittest.TestCase):
    def rows(self, rng, dim):
        """Of every scale, with offsets, on a grid (ties), constant, of zeros of both signs, tiny."""
        size, offset = (10.0 ** rng.uniform(-12, 4.5, (60, 1)) for _ in range(2))
        normal = rng.standard_normal((60, dim))
        signs = rng.choice([0.0, 1.0, -1.0], (60, 1))
        return numpy.concatenate([normal * size, normal * size + offset * signs, numpy.round(normal * 2) * size,
                                  numpy.repeat(offset * signs, dim, axis=1), rng.choice([0.0, -0.0], (20, dim)),
                                  normal * 10.0 ** rng.uniform(-45, -30, (60, 1)), numpy.clip(normal, -3, 3) * 1e38]).astype(numpy.float32)

    @needs_torch
    def test_encoders_give_the_bytes_of_pytorch_wherever_these_are_finite(self):
        rng, compared = generator(), 0
        for dim in [1, 2, 3, 4, 5, 7, 8, 15, 16, 20, 31, 32, 33, 64, 100, 128, int(rng.integers(129, 600))]:
            numbers = self.rows(rng, dim)
            for row_format in PACKERS:
                if dim * BITS[row_format] % 8:
                    continue  # PyTorch packs whole bytes only
                expected = pack_like_torch(row_format, numbers)
                output = subprocess.run([str(ENCODE_ROWS), row_format, str(dim)], input=numbers.tobytes(), capture_output=True, check=True)
                self.assertEqual(output.stderr, b"")
                got = numpy.frombuffer(output.stdout, numpy.uint8).reshape(expected.shape)
                tail = numpy.ascontiguousarray(expected[:, -8:]).view("<f4") if row_format == "int8" else expected[:, -4:].copy().view("<f2")
                finite = numpy.isfinite(tail.astype(numpy.float32)).all(axis=1)
                wrong = numpy.flatnonzero((got != expected).any(axis=1) & finite)
                self.assertEqual(len(wrong), 0, f"{row_format}, dim {dim}: first {numbers[wrong[:1]]}")
                self.assertTrue(numpy.isfinite(decode_rows(row_format, dim, got)).all(), f"{row_format}, dim {dim}")
                compared += int(finite.sum())
        self.assertGreater(compared, 10000)


class TestPackedImport(unittest.TestCase):
    def import_packed(self, name, pack):
        """Imports a reference model whose tables went through pack(numbers) -> (config fields, tensor, numbers that it stands for or None).
        Checks rows and scores; the warnings."""
        source, folder = fixture.reference_models()[name], fixture.scratch("packed")
        config, tensors = json.loads((source / "config.json").read_text(encoding="utf-8")), read_safetensors(source / "model.safetensors")
        numbers = {}
        for table in config["tables"]:
            fields, tensors[table["weight"]], numbers[table["name"]] = pack(tensors[table["weight"]])
            table.update(fields)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        write_safetensors(folder / "model.safetensors", tensors)
        package = folder / "package/1"
        package.parent.mkdir()
        said = fixture.rankpack("import", "--config", folder / "config.json", "--weights", folder / "model.safetensors", "--output", package)
        oracle = Oracle(package)
        for table in oracle.manifest["tables"]:
            rows, expected = oracle.rows[table["name"]], numbers[table["name"]]
            self.assertLessEqual(numpy.abs(rows - expected).max(), 1e-6 * numpy.abs(expected).max(), f"{name}, table {table['name']}")
        requests = fixture.requests_of(name)[:8]
        (folder / "requests.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests), encoding="utf-8")
        lines = fixture.rankpack("score", package, "--requests", folder / "requests.jsonl").stdout.splitlines()
        self.assertEqual(len(lines), len(requests))
        for request, line in zip(requests, lines):
            expected, got = oracle.logits(request), numpy.array(json.loads(line)["logits"])
            error = (numpy.abs(got - expected) / numpy.maximum(1, numpy.abs(expected))).max()
            self.assertLessEqual(error, TOLERANCE, f"{name}, request {request['id']}")
        return package, tensors, config, said.stdout + said.stderr

    def models(self):
        for name in sorted(fixture.reference_models()):
            with self.subTest(model=name):
                yield name

    @needs_torch
    def test_tables_packed_by_pytorch_keep_their_bytes(self):
        for name in self.models():
            for row_format in PACKERS:
                def pack(numbers, row_format=row_format):
                    packed = pack_like_torch(row_format, numbers)
                    return {"format": row_format}, packed, unpack_like_torch(row_format, packed)[:, :numbers.shape[1]]
                package, tensors, config, _ = self.import_packed(name, pack)
                manifest = json.loads((package / "manifest.json").read_text(encoding="utf-8"))
                self.assertEqual(manifest["format"]["version"], 2)
                for table, described in zip(config["tables"], manifest["tables"]):
                    self.assertEqual(described["format"], row_format)
                    self.assertTrue((stored_rows(package, described) == tensors[table["weight"]]).all())

    def test_tables_in_the_layout_of_fbgemm(self):
        rng = generator()
        for name in self.models():
            for row_format, padding in (("int8", 0), ("int8", 12), ("int4", 4), ("int2", 1), ("int2", 127)):
                def pack(numbers, row_format=row_format, padding=padding):
                    packed, stands_for = pack_by_hand(row_format, numbers, padding, rng)
                    return {"format": row_format, "layout": "fbgemm"}, packed, stands_for
                said = self.import_packed(name, pack)[3]
                self.assertEqual("of padding behind each row" in said, padding > 0, said)
                if padding > 1:
                    self.assertIn(f"{padding} bytes of padding", said)

    def test_halves_stay_halves(self):
        for name in self.models():
            for row_format, convert in (("fp16", lambda numbers: numbers.astype("<f2")), ("bf16", bfloat16)):
                def pack(numbers, row_format=row_format, convert=convert):
                    halves = convert(numbers)
                    return {"format": row_format}, halves, decode_rows(row_format, numbers.shape[1], halves.view(numpy.uint8))
                package, tensors, config, _ = self.import_packed(name, pack)
                manifest = json.loads((package / "manifest.json").read_text(encoding="utf-8"))
                for table, described in zip(config["tables"], manifest["tables"]):
                    self.assertEqual(stored_rows(package, described).tobytes(), tensors[table["weight"]].tobytes())

    def test_a_row_that_is_not_finite_is_refused_by_table_and_row(self):
        def pack(numbers):
            packed, stands_for = pack_by_hand("int4", numbers, 0, generator())
            packed[-1, :2] = [0x00, 0x7e]  # a scale that is NaN
            return {"format": "int4", "layout": "fbgemm"}, packed, stands_for
        with self.assertRaisesRegex(AssertionError, "row 999 of table 'a' .* not finite"):
            self.import_packed("dot", pack)


if __name__ == "__main__":
    fixture.main()
