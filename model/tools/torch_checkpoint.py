"""Reads the tensors of a PyTorch checkpoint without PyTorch, and without trusting the file.

    .pt, .pth            torch.save's zip: a pickle that describes tensors, and one member of raw bytes per storage. The pickle is
                         read by an unpickler that knows tensor rebuilding, plain containers and nothing else, so that
                         no code in the file can run.
    .safetensors         a JSON header and raw bytes
    *.index.json         tensors spread over several .safetensors beside it

load() gives nested dicts whose leaves are Tensor: name, dtype, shape, and where the bytes are. Bytes are mapped and converted to float32
in blocks, so a table larger than memory can be exported.
"""

import collections
import json
import os
import pickle
import stat
import struct
import zipfile

import numpy as np

MAX_PICKLE_BYTES = 256 << 20  # describes tensors only; their bytes are elsewhere
MAX_HEADER_BYTES = 256 << 20
BLOCK_ELEMENTS = 4 << 20

# How each stored type is read; bfloat16 has no numpy type and is read as its bits.
STORED = {
    "float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": "<u2",
    "int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "i1", "uint8": "u1", "bool": "u1",
}
FLOATS = ("float32", "float64", "float16", "bfloat16")


class CheckpointError(Exception):
    """What is wrong with the file, for people."""


class Tensor:
    """A strided view into the bytes [offset, offset + storage_elements * itemsize) of a file; nothing is read before blocks()."""

    def __init__(self, name, dtype, shape, strides, path, offset, storage_elements, first_element=0):
        self.name, self.dtype, self.shape, self.strides = name, dtype, tuple(shape), tuple(strides)
        self.path, self.offset, self.storage_elements, self.first_element = path, offset, storage_elements, first_element
        itemsize = np.dtype(STORED[dtype]).itemsize
        if len(self.shape) != len(self.strides) or len(self.shape) > 8:
            raise CheckpointError(f"tensor '{name}': shape {self.shape} and strides {self.strides} do not belong together")
        if not all(is_count(n) for n in self.shape + self.strides + (first_element, storage_elements)):
            raise CheckpointError(f"tensor '{name}': sizes must be whole numbers from 0 to 2^62")
        self.elements = product(self.shape)
        last = first_element + sum((n - 1) * s for n, s in zip(self.shape, self.strides)) if self.elements else 0
        if self.elements and last >= storage_elements:
            raise CheckpointError(f"tensor '{name}': element {last} lies outside its storage of {storage_elements} elements")
        if self.elements > max(storage_elements, 1) or offset + storage_elements * itemsize > os.path.getsize(path):
            raise CheckpointError(f"tensor '{name}': {self.elements} elements do not fit into what '{path}' holds")

    def blocks(self):
        """float32 arrays, row after row; refuses what float32 cannot hold."""
        if not self.elements:
            return
        stored = np.dtype(STORED[self.dtype])
        raw = np.memmap(self.path, stored, "r", self.offset, (self.storage_elements,))
        view = np.lib.stride_tricks.as_strided(raw[self.first_element:], self.shape or (1,),
                                               [s * stored.itemsize for s in self.strides] or [stored.itemsize])
        rows = max(1, BLOCK_ELEMENTS // max(1, self.elements // view.shape[0]))
        for first in range(0, view.shape[0], rows):
            block = np.array(view[first:first + rows])
            if self.dtype == "bfloat16":
                block = (block.astype("<u4") << 16).view("<f4")
            with np.errstate(over="ignore"):
                block = block.astype("<f4", copy=False)
            if not np.isfinite(block).all():
                bad = np.argwhere(~np.isfinite(block))[0]
                where = "][".join(str(i + (first if axis == 0 else 0)) for axis, i in enumerate(bad))
                raise CheckpointError(f"tensor '{self.name}': element [{where}] is not a finite float32 number; "
                                      "training diverged or the file is damaged")
            yield block

    def array(self):
        """All of it; for the small ones."""
        if not self.elements:
            return np.zeros(self.shape, "<f4")
        return np.concatenate([block.reshape(-1) for block in self.blocks()]).reshape(self.shape)


class Opaque:
    """Stands for something in a checkpoint that is no plain tensor: it is kept as a name and never becomes anything else."""

    what = "?"

    def __init__(self, *_):
        pass

    def __setstate__(self, _state):
        pass

    # A pickle may fill it as it would have filled the real thing.
    def append(self, _item):
        pass

    def extend(self, _items):
        pass

    def __setitem__(self, _key, _value):
        pass


def opaque(what):
    return type("Opaque", (Opaque,), {"what": what})


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1 << 62


def product(numbers):
    result = 1
    for n in numbers:
        result *= n
    return result


def load(path):
    """Nested dicts with Tensor leaves. Second result: is the order of the names the module's own? (safetensors sorts them)"""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            path = index_of_folder(path)
        elif not stat.S_ISREG(mode):
            raise CheckpointError(f"'{path}' is not a file")
        if path.endswith(".index.json"):
            return load_index(path), False
        with open(path, "rb") as file:
            start = file.read(9)
        if start[:4] == b"PK\x03\x04":
            return load_zip(path), True
        if path.endswith(".safetensors") or start[8:9] == b"{":
            return load_safetensors(path), False
        if start[:1] == b"\x80":
            raise CheckpointError(f"'{path}' is in torch.save's format of before PyTorch 1.6; load it there and "
                                  "torch.save it again with a current PyTorch")
        raise CheckpointError(f"'{path}' is neither a torch.save zip nor a safetensors file")
    except OSError as error:
        raise CheckpointError(f"cannot read '{error.filename or path}': {error.strerror}") from None


def index_of_folder(folder):
    names = sorted(name for name in os.listdir(folder) if name.endswith(".safetensors.index.json"))
    if not names and os.path.exists(os.path.join(folder, "model.safetensors")):
        names = ["model.safetensors"]
    if len(names) != 1:
        raise CheckpointError(f"'{folder}' holds {len(names)} *.safetensors.index.json files; name one file")
    return os.path.join(folder, names[0])


# ---- torch.save's zip ----

STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
# Common beside a state_dict (metrics, arguments, special tensors); recognised, never interpreted.
HARMLESS = {
    ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"), ("numpy", "dtype"), ("_codecs", "encode"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"),
    ("argparse", "Namespace"), ("torch", "device"), ("torch", "Generator"),
    ("torch._utils", "_rebuild_qtensor"), ("torch._utils", "_rebuild_sparse_tensor"), ("torch._utils", "_rebuild_meta_tensor_no_storage"),
    ("torch.torch_version", "TorchVersion"),
}


class Storage:
    def __init__(self, dtype, offset, elements):
        self.dtype, self.offset, self.elements = dtype, offset, elements


class TensorUnpickler(pickle._Unpickler):  # the one in Python: the C one lets a few bytes of memo reserve gigabytes
    def __init__(self, file, path, members):
        super().__init__(file, encoding="utf-8")
        self.path, self.members = path, members

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("collections", "defaultdict"):
            return lambda *_: {}
        if (module, name) == ("builtins", "set") or (module, name) == ("__builtin__", "set"):
            return set
        if (module, name) == ("torch", "Size"):
            return tuple
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return self.rebuild_tensor
        if module == "torch._utils" and name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return lambda data, *_: data
        if module == "torch" and name in STORAGES:
            return opaque(name)
        if (module, name) in HARMLESS:
            return opaque(f"{module}.{name}")
        if module == "torch" and name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int8", "uint8", "bool"):
            return opaque(name)()
        raise CheckpointError(
            f"'{self.path}' wants to run {module}.{name}, which is no part of a plain state_dict, so it is not opened; "
            "if you trust it, load it with PyTorch and save torch.save(model.state_dict(), PATH)")

    def persistent_load(self, pid):
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or not isinstance(pid[1], type):
            raise CheckpointError(f"'{self.path}': a storage is described in an unknown way: {str(pid)[:80]}")
        _, kind, key, _, elements = pid
        member = self.members.get(f"data/{key}")
        dtype = STORAGES.get(getattr(kind, "what", None))
        if dtype is None or member is None or not is_count(elements):
            raise CheckpointError(f"'{self.path}': storage '{key}' of {str(elements)[:30]} elements is not in the file, or of a type "
                                  "that is not known")
        offset, length = member
        if elements * np.dtype(STORED[dtype]).itemsize > length:
            raise CheckpointError(f"'{self.path}': storage '{key}' should hold {elements} elements of {dtype}, the file has {length} bytes")
        return Storage(dtype, offset, elements)

    def rebuild_tensor(self, storage, first_element, shape, strides, *_):
        if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
            raise CheckpointError(f"'{self.path}': a tensor is described in an unknown way")
        return Tensor("(unnamed)", storage.dtype, shape, strides, self.path, storage.offset, storage.elements, first_element)


def load_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            members = {}
            pickles = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise CheckpointError(f"'{path}' is a zip with {len(pickles)} data.pkl; torch.save writes one (TorchScript is not read)")
            top = pickles[0].filename[:-len("data.pkl")]
            for info in archive.infolist():
                if info.filename.startswith(top):
                    members[info.filename[len(top):]] = raw_member(path, archive, info)
            if pickles[0].file_size > MAX_PICKLE_BYTES:
                raise CheckpointError(f"'{path}': data.pkl has {pickles[0].file_size} bytes, more than describing tensors takes")
            if "byteorder" in members and archive.read(top + "byteorder").strip() != b"little":
                raise CheckpointError(f"'{path}' was written on a big-endian machine; save it again on a little-endian one")
            with archive.open(pickles[0]) as stream:
                unpickler = TensorUnpickler(stream, path, members)
                result = unpickler.load()
    except CheckpointError:
        raise
    except OSError:
        raise
    except Exception as error:  # whatever a damaged zip or pickle makes Python say
        raise CheckpointError(f"'{path}' is damaged: {type(error).__name__}: {str(error)[:120]}") from None
    if not isinstance(result, dict):
        raise CheckpointError(f"'{path}' holds a {type(result).__name__}, not a state_dict or a dict with one")
    return result


def raw_member(path, archive, info):
    """Where a member's bytes are in the file; torch.save stores them uncompressed."""
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
        if info.filename.rsplit("/", 2)[-2:-1] == ["data"]:
            raise CheckpointError(f"'{path}': '{info.filename}' is compressed; unpack and save it again with torch.save")
        return 0, 0
    archive.fp.seek(info.header_offset)
    header = archive.fp.read(30)
    if len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise CheckpointError(f"'{path}': no member header at byte {info.header_offset}; the file is damaged")
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    offset = info.header_offset + 30 + name_bytes + extra_bytes
    if offset + info.file_size > os.path.getsize(path):
        raise CheckpointError(f"'{path}': '{info.filename}' runs past the end; the file is truncated")
    return offset, info.file_size


# ---- safetensors ----

SAFETENSORS_DTYPES = {"F32": "float32", "F64": "float64", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
                      "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}


def unique(pairs):
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name appears twice")
    return result


def parse_json(path, raw):
    try:
        result = json.loads(raw, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"'{path}': its JSON cannot be read: {str(error)[:120]}") from None
    if not isinstance(result, dict):
        raise CheckpointError(f"'{path}': its JSON is not an object")
    return result


def load_safetensors(path):
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise CheckpointError(f"'{path}': a header of {length} bytes does not fit into a file of {size}; damaged or no safetensors")
        header = parse_json(path, file.read(length))
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        except (TypeError, KeyError, ValueError):
            raise CheckpointError(f"'{path}': tensor '{name}' lacks dtype, shape or data_offsets") from None
        if not isinstance(dtype, str) or not isinstance(shape, list) or not all(map(is_count, shape + [begin, end])):
            raise CheckpointError(f"'{path}': tensor '{name}': dtype, shape or data_offsets have wrong values")
        if dtype not in SAFETENSORS_DTYPES:
            tensors[name] = opaque(dtype)()
            continue
        kind = SAFETENSORS_DTYPES[dtype]
        if end - begin != product(shape) * np.dtype(STORED[kind]).itemsize:
            raise CheckpointError(f"'{path}': tensor '{name}': shape {shape} of {dtype} does not take {end - begin} bytes")
        strides = [product(shape[i + 1:]) for i in range(len(shape))]
        tensors[name] = Tensor(name, kind, shape, strides, path, 8 + length + begin, product(shape))
    return tensors


def load_index(path):
    if os.path.getsize(path) > MAX_HEADER_BYTES:
        raise CheckpointError(f"'{path}' is too large for an index")
    with open(path, "rb") as file:
        weight_map = parse_json(path, file.read()).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"'{path}': no 'weight_map' in it")
    files, tensors = {}, {}
    for name, part in weight_map.items():
        if not isinstance(part, str) or os.path.basename(part) != part or part in ("", ".", ".."):
            raise CheckpointError(f"'{path}': tensor '{name}' is said to be in {str(part)[:80]!r}; only files beside the index are read")
        if part not in files:
            files[part] = load_safetensors(os.path.join(os.path.dirname(path), part))
        if name not in files[part]:
            raise CheckpointError(f"'{path}': tensor '{name}' should be in '{part}' but is not")
        tensors[name] = files[part][name]
    return tensors
