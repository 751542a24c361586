"""A float32 model package with a dot interaction as plain arrays, for building the same model elsewhere; and requests as the arrays that such a model reads.

A batch of a general framework has no context: the user's features stand in every row, as teams send them. `tiled` makes these arrays of a request."""

import json
import pathlib
import sys
import types

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "integration"))
import oracle  # noqa: E402


def load(path):
    """All tables one after the other, so that a framework may look all features up at once:

    table     float32 [rows of all, dim]
    features  of name, base (its table's first row), rows, weighted
    bottom, top   [(weight [out, in], bias [out])]
    pairs     positions in the flattened [vectors, vectors] of dots, in the order in which the top MLP reads them"""
    package = oracle.Oracle(pathlib.Path(path), numpy.float32)
    manifest = package.manifest
    interaction = manifest["interaction"]
    if interaction["op"] != "dot" or any(feature["pooling"] != "sum" for feature in manifest["features"]):
        raise SystemExit(f"{path}: only models with dot interaction and sum pooling are built in other frameworks")
    bases, rows, base = {}, {}, 0
    for table in manifest["tables"]:
        bases[table["name"]], rows[table["name"]] = base, table["rows"]
        base += table["rows"]
    dim = manifest["tables"][0]["dim"]
    table = numpy.empty((base, dim), dtype=numpy.float32)
    for name in bases:
        table[bases[name]:bases[name] + rows[name]] = package.rows.pop(name)
    features = [types.SimpleNamespace(name=feature["name"], base=bases[feature["table"]], rows=rows[feature["table"]],
                                      weighted=feature.get("weighted", False)) for feature in manifest["features"]]
    vectors = len(features) + 1
    pairs = [i * vectors + j for i in range(vectors) for j in range(vectors)
             if (j < i if interaction["pairs"] == "tril" else j > i) or (interaction["self"] and i == j)]

    def layers(name):
        return [(numpy.ascontiguousarray(package.tensor(layer["weight"])), numpy.ascontiguousarray(package.tensor(layer["bias"])))
                for layer in manifest[name]]
    return types.SimpleNamespace(table=table, features=features, dim=dim, bottom=layers("bottom_mlp"), top=layers("top_mlp"),
                                 pairs=numpy.array(pairs, dtype=numpy.int64), heads=len(manifest["heads"]))


def tiled(request, model):
    """dense float32 [rows, inputs], and per feature (ids int64 [ids], lengths int64 [rows], weights float32 [ids] or None)."""
    context, candidates = request["context"], request["candidates"]
    dense = numpy.array([context.get("dense", []) + candidate.get("dense", []) for candidate in candidates], dtype=numpy.float32)
    bags = []
    for feature in model.features:
        sides = [context] * len(candidates) if feature.name in context.get("ids", {}) else candidates
        ids = [side["ids"][feature.name] for side in sides]
        weights = [value for side in sides for value in side["weights"][feature.name]] if feature.weighted else None
        bags.append((numpy.array([one for bag in ids for one in bag], dtype=numpy.int64), numpy.array([len(bag) for bag in ids], dtype=numpy.int64),
                     None if weights is None else numpy.array(weights, dtype=numpy.float32)))
    return types.SimpleNamespace(rows=len(candidates), dense=dense, bags=bags)


def single(batch):
    """For each feature, whether all its bags have one id without a weight, so that a lookup is a row."""
    return [weights is None and bool((lengths == 1).all()) for _, lengths, weights in batch.bags]


def merged(batch, model):
    """All bags of a batch, row after row and in each row feature after feature, into the one table: ids, offsets [rows * features + 1], weights or None."""
    count = len(batch.bags)
    lengths = numpy.stack([lengths for _, lengths, _ in batch.bags], axis=1).reshape(-1)
    offsets = numpy.concatenate([[0], numpy.cumsum(lengths)])
    if all(single(batch)):
        ids = numpy.stack([ids for ids, _, _ in batch.bags], axis=1) + numpy.array([feature.base for feature in model.features])
        return ids.reshape(-1), offsets, None
    bag_of_id = numpy.concatenate([numpy.repeat(numpy.arange(batch.rows) * count + f, lengths) for f, (_, lengths, _) in enumerate(batch.bags)])
    order = numpy.argsort(bag_of_id, kind="stable")
    ids = numpy.concatenate([ids + feature.base for feature, (ids, _, _) in zip(model.features, batch.bags)])[order]
    if all(weights is None for _, _, weights in batch.bags):
        return ids, offsets, None
    weights = numpy.concatenate([numpy.ones(len(ids), numpy.float32) if weights is None else weights for ids, _, weights in batch.bags])
    return ids, offsets, weights[order]


def read_requests(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]
