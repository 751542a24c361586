"""JSON requests as rows of all features, as servers that know no candidates take them."""

import json

from rankd_fixture import reference_models


def features_of(model):
    return json.loads((reference_models()[model] / "config.json").read_text())["features"]


def tiled(request):
    """The candidates, each with the context's features and dense inputs before its own."""
    context = request.get("context", {})
    return [{"dense": context.get("dense", []) + row.get("dense", []), "ids": {**context.get("ids", {}), **row.get("ids", {})},
             "weights": {**context.get("weights", {}), **row.get("weights", {})}} for row in request["candidates"]]


def bags(features, rows):
    """lengths [features][rows], ids and weights in the order of the bags; weights for all ids, those that nobody reads being 9."""
    lengths, ids, weights = [], [], []
    for feature in features:
        for row in rows:
            bag = row["ids"][feature["name"]]
            lengths.append(len(bag))
            ids += bag
            weights += row.get("weights", {}).get(feature["name"], [9.0] * len(bag))
    return lengths, ids, weights
