#!/usr/bin/env python3
"""The server that a team writes first: gRPC's own Python server and a thread pool around a framework, answering rankd.v1.Ranking/Rank.

    serve.py --framework torch|onnx --format fp32|int8 --package DIR --generated DIR --threads T --pool N --port P --example FILE.jsonl

It decodes a request into arrays, puts the user into every row, runs the variant that scores the example's requests fastest, decoding included, and answers
with the probabilities of all candidates. P may be shared by several processes (SO_REUSEPORT). Says "ready" and what it runs, and ends with its input."""

import argparse
import importlib
import json
import statistics
import sys
import time
import types
from concurrent import futures

import grpc
import numpy

import package

EXAMPLES, TUNING_ROUNDS = 16, 5


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--framework", choices=("torch", "onnx"), required=True)
    parser.add_argument("--format", choices=("fp32", "int8"), required=True)
    parser.add_argument("--package", required=True)
    parser.add_argument("--generated", required=True, help="the folder with rankd_pb2.py")
    parser.add_argument("--threads", type=int, required=True, help="of the framework")
    parser.add_argument("--pool", type=int, required=True, help="calls computed at a time")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--example", required=True)
    return parser.parse_args()


def side(features, rows, copies):
    """{feature: (ids, lengths, weights or None)} of one block of a request, repeated `copies` times."""
    bags = {}
    for jagged in features.ids:
        ids, weights = numpy.array(jagged.ids, dtype=numpy.int64), numpy.array(jagged.weights, dtype=numpy.float32) if jagged.weights else None
        lengths = numpy.array(jagged.lengths, dtype=numpy.int64) if jagged.lengths else numpy.full(rows, len(ids) // rows)
        if copies > 1:
            ids, lengths, weights = numpy.tile(ids, copies), numpy.tile(lengths, copies), None if weights is None else numpy.tile(weights, copies)
        bags[jagged.feature] = (ids, lengths, weights)
    return bags


def decoded(request, model):
    """A RankRequest as a batch with the user in every row."""
    rows = request.num_candidates
    user = numpy.array(request.context.dense, dtype=numpy.float32)
    candidates = numpy.array(request.candidates.dense, dtype=numpy.float32).reshape(rows, -1)
    dense = numpy.empty((rows, user.size + candidates.shape[1]), dtype=numpy.float32)
    dense[:, :user.size], dense[:, user.size:] = user, candidates
    bags = {**side(request.context, 1, rows), **side(request.candidates, rows, 1)}
    return types.SimpleNamespace(rows=rows, dense=dense, bags=[bags[feature.name] for feature in model.features])


def fastest(peer, variants, requests, model):
    """The variant with the least median time from message to logits, and the medians in ms."""
    times = {variant: [] for variant in variants}
    for _ in range(TUNING_ROUNDS):
        for variant in variants:
            for request in requests:
                start = time.perf_counter()
                peer.logits(variant, variant.prepare(decoded(request, model)))
                times[variant].append(1e3 * (time.perf_counter() - start))
    medians = {variant.name: statistics.median(of) for variant, of in times.items()}
    return min(variants, key=lambda variant: medians[variant.name]), medians


def messages(path, pb):
    """The requests of a file as RankRequests."""
    for request in package.read_requests(path)[:EXAMPLES]:
        message = pb.RankRequest(num_candidates=len(request["candidates"]))
        for block, rows in ((message.context, [request["context"]]), (message.candidates, request["candidates"])):
            block.dense.extend(value for row in rows for value in row.get("dense", []))
            for name in rows[0].get("ids", {}):
                block.ids.add(feature=name, ids=[one for row in rows for one in row["ids"][name]], lengths=[len(row["ids"][name]) for row in rows],
                              weights=[value for row in rows for value in row.get("weights", {}).get(name, [])])
        yield message


def main():
    options = arguments()
    sys.path.insert(0, options.generated)
    import rankd_pb2 as pb
    peer = importlib.import_module(options.framework + "_peer")
    model = package.load(options.package)
    examples = list(messages(options.example, pb))
    with peer.guard():
        variants = peer.variants(model, options.format, options.threads, [decoded(request, model) for request in examples])
        variant, medians = fastest(peer, variants, examples, model)
    heads = json.load(open(options.package + "/manifest.json", encoding="utf-8"))["heads"]

    def rank(request, _):
        with peer.guard():
            logits = peer.logits(variant, variant.prepare(decoded(request, model)))
        return pb.RankResponse(model=request.model, version=1, heads=heads, probabilities=(1 / (1 + numpy.exp(-logits))).reshape(-1).tolist())

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=options.pool), options=[("grpc.so_reuseport", 1)])
    handler = grpc.unary_unary_rpc_method_handler(rank, request_deserializer=pb.RankRequest.FromString, response_serializer=pb.RankResponse.SerializeToString)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("rankd.v1.Ranking", {"Rank": handler})])
    port = server.add_insecure_port(f"127.0.0.1:{options.port}")
    server.start()
    about = {"port": port, "version": f"{peer.VERSION}, grpcio {grpc.__version__}", "variant": variant.name, "ms_from_message_to_logits": medians}
    print("ready " + json.dumps(about), flush=True)
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main()
