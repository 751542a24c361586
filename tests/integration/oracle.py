"""The oracle of the integration tests: it knows packages only from model/FORMAT.md and shares no code with rankd.

It reads manifest, weights and rows with numpy and computes in float64. Where FORMAT.md rounds (the inputs of bf16 and int8 layers, the vectors of the
interaction), the oracle rounds too; a number that lies on the edge between two levels can then fall to the other side."""

import json

import numpy

# Exponent bits, mantissa bits, exponent bias.
SMALL_FLOATS = {"e4m3": (4, 3, 7), "e5m2": (5, 2, 15), "e2m3": (2, 3, 1), "e3m2": (3, 2, 3), "e2m1": (2, 1, 1)}
INTEGERS = {"int8": (8, "<f4"), "int4": (4, "<f2"), "int2": (2, "<f2")}  # bits, scale and bias
NUMBERS = {"fp32": "<f4", "fp16": "<f2", "bf16": "<u2"}
MX_BLOCK = 32


def unpack_bits(packed, bits, dim):
    """[rows, bytes] to [rows, dim] codes, packed from the low bits of the first byte upward."""
    low_first = numpy.unpackbits(packed, axis=1, bitorder="little")[:, :dim * bits].reshape(len(packed), dim, bits)
    return (low_first.astype(numpy.uint32) << numpy.arange(bits, dtype=numpy.uint32)).sum(axis=2)


def small_float(name, codes):
    """What the formula of the format gives; codes for infinity and NaN do not occur in packages."""
    exponent_bits, mantissa_bits, bias = SMALL_FLOATS[name]
    exponent = (codes >> mantissa_bits) % (1 << exponent_bits)
    mantissa = (codes % (1 << mantissa_bits)) / (1 << mantissa_bits)
    size = numpy.where(exponent == 0, mantissa * 2.0 ** (1 - bias), (1 + mantissa) * 2.0 ** (exponent.astype(int) - bias))
    return numpy.where(codes >> (exponent_bits + mantissa_bits), -size, size)


def element_bits(row_format):
    return 4 if row_format.startswith("mxfp4") else 6 if row_format.startswith("mxfp6") else 8


def decode_rows(row_format, dim, raw):
    """Rows [rows, bytes of a row] in their format to float32 [rows, dim]."""
    if row_format in NUMBERS:
        numbers = numpy.ascontiguousarray(raw).view(NUMBERS[row_format])
        return (numbers.astype(numpy.uint32) << 16).view(numpy.float32) if row_format == "bf16" else numbers.astype(numpy.float32)
    if row_format in INTEGERS:
        bits, tail = INTEGERS[row_format]
        end = (dim * bits + 7) // 8
        scale, bias = numpy.ascontiguousarray(raw[:, end:]).view(tail).astype(numpy.float64).T[:, :, None]
        return (unpack_bits(raw[:, :end], bits, dim) * scale + bias).astype(numpy.float32)
    bits = element_bits(row_format)
    end = (dim * bits + 7) // 8
    codes = unpack_bits(raw[:, :end], bits, dim)
    numbers = codes.astype(numpy.uint8).view(numpy.int8).reshape(codes.shape) / 64.0 if row_format == "mxint8" else small_float(row_format[-4:], codes)
    if row_format.startswith("mx"):
        scale = numpy.repeat(2.0 ** (raw[:, end:].astype(int) - 127), MX_BLOCK, axis=1)[:, :dim]
    else:
        scale = numpy.ascontiguousarray(raw[:, end:]).view("<f4").astype(numpy.float64)
    return (numbers * scale).astype(numpy.float32)


def row_bytes(row_format, dim):
    if row_format in NUMBERS:
        return dim * numpy.dtype(NUMBERS[row_format]).itemsize
    if row_format in INTEGERS:
        return (dim * INTEGERS[row_format][0] + 7) // 8 + 2 * numpy.dtype(INTEGERS[row_format][1]).itemsize
    return (dim * element_bits(row_format) + 7) // 8 + ((dim + MX_BLOCK - 1) // MX_BLOCK if row_format.startswith("mx") else 4)


def stored_rows(package, table):
    """The rows that the shards hold, as bytes."""
    bytes_of_row = row_bytes(table["format"], table["dim"])
    return numpy.concatenate([numpy.fromfile(package / shard["file"], dtype=numpy.uint8).reshape(shard["num_rows"], bytes_of_row)
                              for shard in table["shards"]])


def table_rows(package, table):
    """All rows of a table, those that were dropped included, as float32."""
    rows = decode_rows(table["format"], table["dim"], stored_rows(package, table))
    if "kept" not in table:
        return rows
    blocks = numpy.fromfile(package / table["kept"]["file"], dtype=numpy.uint8).reshape(-1, 64)
    kept = numpy.unpackbits(blocks[:, 8:], axis=1, bitorder="little").reshape(-1)[:table["rows"]].astype(bool)
    return rows[numpy.where(kept, numpy.cumsum(kept) - 1, table["kept"]["rows"])]


def bf16(values):
    """To nearest, ties to even."""
    bits = values.astype(numpy.float32).view(numpy.uint32).astype(numpy.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(numpy.uint32).view(numpy.float32).astype(numpy.float64)


def int8_inputs(values, given):
    """What an int8 layer makes of its inputs; `given` is their range, or None. Steps are float32."""
    values = values.astype(numpy.float32)
    low, high = (numpy.float32(limit) for limit in (given or (min(0, values.min()), max(0, values.max()))))
    scale = high / numpy.float32(255) - low / numpy.float32(255)
    if scale < numpy.finfo(numpy.float32).tiny:
        return numpy.zeros(len(values))
    inverse = numpy.float32(1) / scale
    zero = numpy.clip(numpy.rint(-low * inverse), 0, 255)
    return scale.astype(numpy.float64) * (numpy.clip(numpy.rint(values * inverse) + zero, 0, 255) - zero)


def int8_vector(values):
    values = values.astype(numpy.float32)
    scale = numpy.abs(values).max() / numpy.float32(127)
    if scale < numpy.finfo(numpy.float32).tiny:
        return numpy.zeros(len(values))
    return scale.astype(numpy.float64) * numpy.clip(numpy.rint(values * (numpy.float32(1) / scale)), -127, 127)


class Oracle:
    """A package as FORMAT.md describes it, evaluated in float64, or in float32 to see how much rounding that format costs here."""

    def __init__(self, package, dtype=numpy.float64):
        self.dtype = dtype
        self.manifest = json.loads((package / "manifest.json").read_text(encoding="utf-8"))
        self.towers = (package / self.manifest["weights"]["file"]).read_bytes()
        self.rows = {table["name"]: table_rows(package, table).astype(self.dtype) for table in self.manifest["tables"]}

    def tensor(self, spec, row_format="fp32"):
        count = int(numpy.prod(spec["shape"]))
        if row_format == "bf16":
            values = (numpy.frombuffer(self.towers, "<u2", count, spec["offset"]).astype(numpy.uint32) << 16).view(numpy.float32)
        else:
            values = numpy.frombuffer(self.towers, "<i1" if row_format == "int8" else "<f4", count, spec["offset"])
        return values.reshape(spec["shape"]).astype(self.dtype)

    def linear(self, layer, x, of_context=None, weight="weight", bias="bias", scale="scale", given="input"):
        """of_context: which inputs depend on the context alone, in a layer that reads both sides."""
        number_format = layer.get("format", "fp32")
        matrix = self.tensor(layer[weight], number_format)
        if number_format == "int8":
            matrix = matrix * self.tensor(layer[scale])[:, None]
            if weight == "weight" and "gain" in layer:
                x = x.astype(numpy.float32) * self.tensor(layer["gain"]).astype(numpy.float32)
            x = numpy.array(x)
            for part in [numpy.ones(len(x), bool)] if of_context is None else [of_context, ~of_context]:
                if part.any():
                    x[part] = int8_inputs(x[part], layer.get(given))
        elif number_format == "bf16":
            x = bf16(x)
        return matrix @ x + (self.tensor(layer[bias]) if bias else 0)

    def mlp(self, layers, x, of_context, relu_last):
        for i, layer in enumerate(layers):
            x = self.linear(layer, x, of_context if i == 0 else None)
            if relu_last or i + 1 < len(layers):
                x = numpy.maximum(x, 0)
        return x

    def bag(self, feature, block):
        name = feature["name"]
        rows = self.rows[feature["table"]][block["ids"][name]]
        if feature.get("weighted"):
            rows = rows * numpy.array(block["weights"][name], dtype=numpy.float32).astype(self.dtype)[:, None]
        if len(rows) == 0:
            return numpy.zeros(rows.shape[1], dtype=self.dtype)
        return rows.mean(axis=0) if feature["pooling"] == "mean" else rows.sum(axis=0)

    def interact(self, x, vectors, of_context):
        """What the top MLP reads, and which of it depends on the context alone (None: nothing does); of_context: x, then each vector."""
        spec = self.manifest["interaction"]
        every = ([x] if len(x) else []) + vectors
        of_context = of_context if len(x) else of_context[1:]
        if spec["op"] == "dot":
            rounded = {"fp32": lambda vector: vector, "bf16": bf16, "int8": int8_vector}[spec.get("format", "fp32")]
            every = [rounded(vector) for vector in every]
            pairs = [(i, j) for i in range(len(every)) for j in range(len(every))
                     if (j < i if spec["pairs"] == "tril" else j > i) or (spec["self"] and i == j)]
            products = numpy.array([every[i] @ every[j] for i, j in pairs], dtype=self.dtype)
            return numpy.concatenate([x, products]), numpy.array([of_context[0]] * len(x) + [of_context[i] and of_context[j] for i, j in pairs])
        x0 = x = numpy.concatenate(every)
        side = numpy.repeat(of_context, [len(vector) for vector in every])
        if spec["op"] == "dcn_v2":
            for k, layer in enumerate(spec["layers"]):
                low = self.linear(layer, x, side if k == 0 else None, "v", None, "v_scale", "v_input")
                x = x0 * self.linear(layer, low, None, "w", "bias", "w_scale", "w_input") + x
            return x, None
        return x, side

    def logits(self, request):
        result = []
        for candidate in request["candidates"]:
            dense = numpy.array(request["context"].get("dense", []) + candidate.get("dense", []), dtype=numpy.float32).astype(self.dtype)
            context_dense = len(request["context"].get("dense", []))
            x = self.mlp(self.manifest["bottom_mlp"], dense, numpy.arange(len(dense)) < context_dense, True)
            vectors = [self.bag(f, request["context"] if f["side"] == "context" else candidate) for f in self.manifest["features"]]
            of_context = [context_dense == len(dense)] + [f["side"] == "context" for f in self.manifest["features"]]
            result.append(self.mlp(self.manifest["top_mlp"], *self.interact(x, vectors, of_context), False))
        return numpy.array(result)
