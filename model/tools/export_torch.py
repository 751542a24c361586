#!/usr/bin/python3
"""Turns a PyTorch checkpoint of a DLRM into config.json and model.safetensors, which `rankpack import` takes.

Reads facebookresearch/dlrm and TorchRec's DLRM and DLRM_DCN from .pt, .safetensors or model.safetensors.index.json; needs numpy, not
PyTorch. A checkpoint says what the weights are, not how the model is served: which features describe the user (the context, looked up once
per request) and which the candidates, how bags are pooled, what the heads are called. Options say that; what was assumed is printed.
"""

import argparse
import json
import os
import sys

import numpy as np

import torch_checkpoint
import torch_layouts
from torch_checkpoint import CheckpointError

ALIGNMENT = 64


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], epilog=__doc__.split("\n\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help=".pt, .pth, .safetensors, .safetensors.index.json, or a folder with an index")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for config.json and model.safetensors; made if missing")
    parser.add_argument("--force", action="store_true", help="overwrite what is in DIR")
    parser.add_argument("--name", help="the model's name (default: the folder's)")
    parser.add_argument("--prefix", help="where the checkpoint holds several models: the one whose names begin so")
    parser.add_argument("--tables", metavar="T1,T2,...", help="tables in interaction order, where a safetensors file has lost it")
    parser.add_argument("--context-features", default="", metavar="F1,F2,...", help="features of the user; the others are the candidates'")
    parser.add_argument("--feature", action="append", default=[], metavar="NAME=TABLE:SIDE:POOLING[:weighted]",
                        help="what reads a table: SIDE is context or candidate, POOLING sum or mean; repeat it for each, and for several "
                             "features of one table; tables without it are read by one feature of their name, sum")
    parser.add_argument("--dense-names", metavar="N1,N2,...", help="names of the dense inputs (default d0, d1, ...)")
    parser.add_argument("--context-dense", default="0", metavar="N|N1,N2,...",
                        help="dense inputs of the user: the first N of them, or by name (default 0)")
    parser.add_argument("--heads", metavar="H1,H2,...", help="names of the outputs (default: score, or score0, score1, ...)")
    parser.add_argument("--interaction", choices=("dot", "dot_self", "cat"), help="where the widths allow more than one")
    parser.add_argument("--out-of-range", default="reject", choices=("reject", "modulo", "default_row"),
                        help="what every table does with an id that it does not have (default_row reads row 0)")
    return parser.parse_args(arguments)


def names_of(text):
    return [name.strip() for name in text.split(",") if name.strip()]


def unique_names(names, what):
    for name in names:
        if names.count(name) > 1:
            raise CheckpointError(f"{what} '{name}' appears twice")
    return names


def read_features(options, layout):
    """Features in interaction order: by table, and within one table in the order of the options."""
    by_table = {name: [] for name, _ in layout.tables}
    for text in options.feature:
        name, equals, rest = text.partition("=")
        table, *how = rest.split(":")
        if not name or not equals or len(how) not in (2, 3) or how[0] not in ("context", "candidate") or how[1] not in ("sum", "mean") \
                or how[2:] not in ([], ["weighted"]):
            raise CheckpointError(f"--feature {text}: expected NAME=TABLE:context|candidate:sum|mean[:weighted]")
        if table not in by_table:
            raise CheckpointError(f"--feature {text}: no table '{table}'; there are {', '.join(by_table)}")
        if how[1:] == ["mean", "weighted"]:
            raise CheckpointError(f"--feature {text}: weighted bags are pooled by sum")
        feature = {"name": name, "table": table, "side": how[0], "pooling": how[1]}
        if how[2:]:
            feature["weighted"] = True
        by_table[table].append(feature)
    features = []
    for table, own in by_table.items():
        features += own or [{"name": table, "table": table, "side": "candidate", "pooling": "sum"}]
    unique_names([feature["name"] for feature in features], "feature")
    for name in names_of(options.context_features):
        matching = [feature for feature in features if feature["name"] == name]
        if not matching:
            raise CheckpointError(f"--context-features: no feature '{name}'; there are {', '.join(f['name'] for f in features)}")
        matching[0]["side"] = "context"
    return features


def read_dense(options, width):
    """Names of the context's and the candidates' dense inputs, and the order in which the bottom MLP's columns go."""
    names = names_of(options.dense_names) if options.dense_names else [f"d{i}" for i in range(width)]
    if len(unique_names(names, "dense input")) != width:
        raise CheckpointError(f"--dense-names gives {len(names)} names; the bottom MLP reads {width} values")
    if options.context_dense.isdigit():
        context = names[:int(options.context_dense)]
        if len(context) != int(options.context_dense):
            raise CheckpointError(f"--context-dense {options.context_dense}: the bottom MLP reads only {width} values")
    else:
        context = unique_names(names_of(options.context_dense), "dense input")
        unknown = [name for name in context if name not in names]
        if unknown:
            raise CheckpointError(f"--context-dense: no dense input '{unknown[0]}'; there are {', '.join(names)}")
    candidate = [name for name in names if name not in context]
    return context, candidate, [names.index(name) for name in context + candidate]


def read_heads(options, width):
    heads = names_of(options.heads) if options.heads else ["score"] if width == 1 else [f"score{i}" for i in range(width)]
    if len(unique_names(heads, "head")) != width:
        raise CheckpointError(f"--heads gives {len(heads)} names; the model has {width} outputs")
    return heads


def make_config(options, layout):
    features = read_features(options, layout)
    torch_layouts.find_interaction(layout, [feature["table"] for feature in features], options.interaction)
    bottom_in = layout.shape(layout.bottom[0] + ".weight")[1]
    context, candidate, columns = read_dense(options, bottom_in)
    tables = []
    for name, tensor in layout.tables:
        rows, dim = layout.shape(tensor)
        table = {"name": name, "rows": rows, "dim": dim, "weight": tensor}
        if options.out_of_range != "reject":
            table["out_of_range"] = options.out_of_range
        if options.out_of_range == "default_row":
            table["default_row"] = 0
        tables.append(table)
    config = {
        "name": options.name or os.path.basename(os.path.abspath(options.output)),
        "dense": {"context": context, "candidate": candidate},
        "tables": tables,
        "features": features,
        "bottom_mlp": layout.bottom,
        "interaction": layout.interaction,
        "top_mlp": layout.top,
        "heads": read_heads(options, layout.shape(layout.top[-1] + ".weight")[0]),
    }
    return config, columns


def tensors_to_write(layout):
    names = [tensor for _, tensor in layout.tables]
    names += [f"{layer}.{part}" for layer in layout.bottom + layout.top for part in ("weight", "bias")]
    if layout.interaction["op"] == "dcn_v2":
        base = layout.interaction["weights"]
        names += [f"{base}.{part}.{k}" for k in range(layout.interaction["layers"]) for part in ("V_kernels", "W_kernels", "bias")]
    return names


def blocks_to_write(layout, name, columns):
    """A tensor's float32 blocks as they are to be stored."""
    tensor = layout.tensors[name]
    if name == layout.bottom[0] + ".weight":
        yield np.ascontiguousarray(tensor.array()[:, columns])
        return
    tables = {weight: table for table, weight in layout.tables}
    factors = layout.row_weights.get(tables.get(name))
    if factors is None:
        yield from tensor.blocks()
        return
    factors, row = layout.tensors[factors].array(), 0
    for block in tensor.blocks():
        yield block * factors[row:row + len(block), None]
        row += len(block)


def write_safetensors(path, layout, columns, progress):
    names, header, offset = tensors_to_write(layout), {}, 0
    for name in names:
        length = layout.tensors[name].elements * 4
        header[name] = {"dtype": "F32", "shape": list(layout.shape(name)), "data_offsets": [offset, offset + length]}
        offset += length
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-(8 + len(raw)) % ALIGNMENT)
    with open(path, "wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        done = 0
        for name in names:
            for block in blocks_to_write(layout, name, columns):
                file.write(block.astype("<f4", copy=False).tobytes())
                done += block.nbytes
                progress(done, offset)
        file.flush()
        os.fsync(file.fileno())
    return offset


def example_request(config):
    """One request of two candidates that fits the model, to start from."""
    def row(side):
        features = [feature for feature in config["features"] if feature["side"] == side]
        result = {"dense": [0.0] * len(config["dense"][side]), "ids": {feature["name"]: [0] for feature in features}}
        weighted = {feature["name"]: [1.0] for feature in features if feature.get("weighted")}
        if weighted:
            result["weights"] = weighted
        return result
    return {"id": "example", "context": row("context"), "candidates": [row("candidate"), row("candidate")]}


def write_text(path, text):
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(path + ".tmp", path)


def show_progress(done, total):
    if sys.stderr.isatty():
        print(f"\rwriting {done / 1e6:.1f} of {total / 1e6:.1f} MB", end="\n" if done == total else "", file=sys.stderr, flush=True)


def export(options):
    config_path, weights_path = os.path.join(options.output, "config.json"), os.path.join(options.output, "model.safetensors")
    os.makedirs(options.output, exist_ok=True)
    for path in (config_path, weights_path):
        if os.path.exists(path) and not options.force:
            raise CheckpointError(f"'{path}' is there already; choose another --output or use --force")
    checkpoint, ordered = torch_checkpoint.load(options.checkpoint)
    layout = torch_layouts.recognise(checkpoint, ordered, options.prefix, names_of(options.tables) if options.tables else None)
    config, columns = make_config(options, layout)
    try:
        written = write_safetensors(weights_path + ".tmp", layout, columns, show_progress)
        os.rename(weights_path + ".tmp", weights_path)
    finally:
        if os.path.exists(weights_path + ".tmp"):
            os.unlink(weights_path + ".tmp")
    write_text(os.path.join(options.output, "example.jsonl"), json.dumps(example_request(config)) + "\n")
    write_text(config_path, json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    report(options, layout, config, written, ordered)


def report(options, layout, config, written, ordered):
    family = {"dlrm": "facebookresearch/dlrm", "torchrec": "TorchRec"}[layout.family]
    rows = sum(table["rows"] for table in config["tables"])
    print(f"read    {options.checkpoint}: {family}, {len(config['tables'])} tables of {rows} rows, "
          f"{len(config['features'])} features, heads {', '.join(config['heads'])}")
    for note in layout.notes:
        print(f"        {note}")
    if layout.family == "torchrec":
        print("        the last layer's output is taken as the logit, as TorchRec does")
    context = [feature["name"] for feature in config["features"] if feature["side"] == "context"]
    print(f"assumed context features: {', '.join(context) or 'none (--context-features F1,F2,... names those of the user)'}")
    print(f"        context dense inputs: {', '.join(config['dense']['context']) or 'none (--context-dense)'}")
    if layout.family == "torchrec" and not ordered and not options.tables:
        print(f"        interaction order of the tables: {', '.join(name for name, _ in layout.tables)}")
        print("        (safetensors does not keep it: if the module lists them otherwise, say so with --tables)")
    print(f"wrote   {options.output}: config.json, model.safetensors ({written / 1e6:.1f} MB), example.jsonl (a request to start from)")
    print(f"next    rankpack import --config {options.output}/config.json --weights {options.output}/model.safetensors "
          f"--output REPOSITORY/{config['name']}/1")


def main():
    options = parse_arguments(sys.argv[1:])
    try:
        export(options)
    except CheckpointError as error:
        sys.exit(f"export_torch: {error}")
    except OSError as error:
        sys.exit(f"export_torch: '{error.filename or options.output}': {error.strerror}")


if __name__ == "__main__":
    main()
