"""JSON requests as rows of all features, as servers that know no candidates take them."""

import json

import numpy

from rankd_fixture import reference_models
import inference_pb2
import predictor_pb2

TYPES = {"FP32": (numpy.float32, "fp32_contents"), "INT32": (numpy.int32, "int_contents"), "INT64": (numpy.int64, "int64_contents")}


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


def tensors(model, request, apart=False, index_type="INT64", length_type="INT64"):
    """A JSON request as inputs of the Open Inference Protocol: (name, datatype, shape, values)."""
    features, context, candidates = features_of(model), request.get("context", {}), request["candidates"]
    weighted = any(feature.get("weighted") for feature in features)
    sides = {side: [feature for feature in features if feature["side"] == side] for side in ("context", "candidate")}

    def make(prefix, chosen, rows, dense):
        made = []
        if dense and dense[0]:
            made.append((prefix + "dense", "FP32", [len(dense), len(dense[0])], sum(dense, [])))
        if chosen:
            lengths, ids, weights = bags(chosen, rows)
            made.append((prefix + "lengths", length_type, [len(chosen), len(rows)], lengths))
            made.append((prefix + "indices", index_type, [len(ids)], ids))
            if weighted and any(feature.get("weighted") for feature in chosen):
                made.append((prefix + "weights", "FP32", [len(ids)], weights))
        return made

    if apart:
        return (make("context_", sides["context"], [context], [context.get("dense", [])])
                + make("", sides["candidate"], candidates, [row.get("dense", []) for row in candidates]))
    rows = tiled(request)
    return make("", features, rows, [row["dense"] for row in rows])


def infer_request(model, inputs, raw=True, **fields):
    """A ModelInferRequest of such inputs."""
    request = inference_pb2.ModelInferRequest(model_name=model, **fields)
    for name, datatype, shape, values in inputs:
        tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
        kind, typed = TYPES[datatype]
        if raw:
            request.raw_input_contents.append(numpy.asarray(values, kind).tobytes())
        else:
            getattr(tensor.contents, typed).extend(numpy.asarray(values, kind).tolist())
    return request


def prediction_request(model, request, length_type=numpy.int32, id_type=numpy.int64):
    """A JSON request as TorchRec's PredictionRequest."""
    rows, features = tiled(request), features_of(model)
    message = predictor_pb2.PredictionRequest(batch_size=len(rows))
    dense = [value for row in rows for value in row["dense"]]
    message.float_features.num_features = len(rows[0]["dense"])
    message.float_features.values = numpy.asarray(dense, numpy.float32).tobytes()
    for weighted, sparse in ((False, message.id_list_features), (True, message.id_score_list_features)):
        chosen = [feature for feature in features if bool(feature.get("weighted")) == weighted]
        lengths, ids, weights = bags(chosen, rows)
        sparse.num_features = len(chosen)
        sparse.lengths = numpy.asarray(lengths, length_type).tobytes()
        sparse.values = numpy.asarray(ids, id_type).tobytes()
        if weighted:
            sparse.weights = numpy.asarray(weights, numpy.float32).tobytes()
    return message
