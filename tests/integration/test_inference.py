#!/usr/bin/python3
"""The Open Inference Protocol: what KServe's and Triton's clients send, and scores that are those of Rank."""

import json
import random
import unittest

import grpc
import numpy

from rankd_fixture import RankdServer, TIME_SCALE, expected_of, main, rank_request, reference_models, repository_of, requests_of, seed
from row_requests import infer_request, tensors
import inference_pb2 as pb

CODE = grpc.StatusCode
SECONDS = 20 * TIME_SCALE


def call(server, method, request):
    response = getattr(pb, f"{method}Response")
    return server.channel.unary_unary(f"/inference.GRPCInferenceService/{method}", request.SerializeToString, response.FromString)(request, timeout=SECONDS)


def outputs(response):
    return {tensor.name: numpy.frombuffer(data, numpy.float32).reshape(tensor.shape) for tensor, data in zip(response.outputs, response.raw_output_contents)}


class TestInference(unittest.TestCase):
    models = ("steam", "dot", "cat", "dcn_v2")

    @classmethod
    def setUpClass(cls):
        cls.server = RankdServer(repository_of(*cls.models))
        cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def infer(self, request):
        return call(self.server, "ModelInfer", request)

    def error(self, request, method="ModelInfer"):
        with self.assertRaises(grpc.RpcError) as caught:
            call(self.server, method, request)
        return caught.exception.code(), caught.exception.details()

    def test_scores_are_those_of_rank_in_every_form_of_the_tensors(self):
        rng = random.Random(seed())
        for model in self.models:
            request = rng.choice(requests_of(model))
            ranked = self.server.stub.Rank(rank_request(model, request, include_logits=True), timeout=SECONDS)
            count, heads = len(request["candidates"]), len(ranked.heads)
            for apart in (False, True):
                for raw in (True, False):
                    for types in (("INT64", "INT64"), ("INT32", "INT32"), ("INT64", "INT32")):
                        with self.subTest(model=model, apart=apart, raw=raw, types=types):
                            scores = outputs(self.infer(infer_request(model, tensors(model, request, apart, *types), raw, id="r-1")))
                            self.assertEqual(scores["probabilities"].shape, (count, heads))
                            self.assertEqual(scores["probabilities"].ravel().tolist(), list(ranked.probabilities))
                            self.assertEqual(scores["logits"].ravel().tolist(), list(ranked.logits))

    def test_the_reference_s_logits_come_back(self):
        for number, (request, expected) in enumerate(zip(requests_of("dot"), expected_of("dot"))):
            logits = outputs(self.infer(infer_request("dot", tensors("dot", request))))["logits"]
            for got, wanted in zip(logits.ravel(), numpy.ravel(expected["logits"])):
                self.assertLessEqual(abs(got - wanted), 1e-5 * max(1, abs(wanted)), number)

    def test_the_answer_names_model_version_and_id_and_has_the_outputs_that_were_asked_for(self):
        inputs = tensors("dot", requests_of("dot")[0])
        response = self.infer(infer_request("dot", inputs, id="abc", model_version="1"))
        self.assertEqual((response.model_name, response.model_version, response.id), ("dot", "1", "abc"))
        self.assertEqual([tensor.name for tensor in response.outputs], ["probabilities", "logits"])
        for names in (["logits"], ["probabilities"], ["logits", "probabilities"]):
            asked = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in names]
            response = self.infer(infer_request("dot", inputs, outputs=asked))
            self.assertEqual([tensor.name for tensor in response.outputs], names)
            self.assertEqual(len(response.raw_output_contents), len(names))

    def test_metadata_and_configuration_say_what_is_taken_and_given(self):
        for model in self.models:
            config = json.loads((reference_models()[model] / "config.json").read_text())
            metadata = call(self.server, "ModelMetadata", pb.ModelMetadataRequest(name=model))
            self.assertEqual((metadata.name, list(metadata.versions)), (model, ["1"]))
            shapes = {tensor.name: list(tensor.shape) for tensor in metadata.inputs}
            context, candidate = len(config["dense"]["context"]), len(config["dense"]["candidate"])
            if context + candidate:
                self.assertEqual(shapes["dense"], [-1, context + candidate])
            self.assertEqual(shapes["lengths"], [len(config["features"]), -1])
            self.assertEqual("weights" in shapes, any(feature.get("weighted") for feature in config["features"]))
            self.assertEqual([(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.outputs],
                             [("probabilities", "FP32", [-1, len(config["heads"])]), ("logits", "FP32", [-1, len(config["heads"])])])
            told = call(self.server, "ModelConfig", pb.ModelConfigRequest(name=model)).config
            self.assertEqual({tensor.name: list(tensor.dims) for tensor in told.input}, shapes)
            self.assertTrue(all(tensor.optional == tensor.name.startswith("context_") for tensor in told.input))
            self.assertEqual((told.max_batch_size, told.backend), (0, "rankd"))

    def test_live_ready_server_metadata_and_the_repository(self):
        self.assertTrue(call(self.server, "ServerLive", pb.ServerLiveRequest()).live)
        self.assertTrue(call(self.server, "ServerReady", pb.ServerReadyRequest()).ready)
        self.assertTrue(call(self.server, "ModelReady", pb.ModelReadyRequest(name="dot", version="1")).ready)
        self.assertEqual(call(self.server, "ServerMetadata", pb.ServerMetadataRequest()).name, "rankd")
        index = call(self.server, "RepositoryIndex", pb.RepositoryIndexRequest(ready=True)).models
        self.assertEqual({(model.name, model.version, model.state) for model in index}, {(model, "1", "READY") for model in self.models})
        call(self.server, "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="dot"))
        self.assertEqual(self.error(pb.RepositoryModelLoadRequest(model_name="other"), "RepositoryModelLoad")[0], CODE.NOT_FOUND)
        code, details = self.error(pb.RepositoryModelUnloadRequest(model_name="dot"), "RepositoryModelUnload")
        self.assertEqual(code, CODE.UNIMPLEMENTED)
        self.assertIn("restart", details)
        for request, method in ((pb.ModelReadyRequest(name="other"), "ModelReady"), (pb.ModelMetadataRequest(name="dot", version="2"), "ModelMetadata"),
                                (pb.ModelConfigRequest(name=""), "ModelConfig")):
            code, details = self.error(request, method)
            self.assertEqual(code, CODE.NOT_FOUND)
            self.assertIn("served: cat version 1", details)
        self.assertEqual(self.error(pb.ModelReadyRequest(name="dot", version="one"), "ModelReady")[0], CODE.INVALID_ARGUMENT)

    def test_statistics_count_model_infer(self):
        def stats():
            return call(self.server, "ModelStatistics", pb.ModelStatisticsRequest(name="cat")).model_stats[0]
        before, request = stats(), requests_of("cat")[0]
        for _ in range(5):
            self.infer(infer_request("cat", tensors("cat", request)))
        after = stats()
        self.assertEqual(after.inference_stats.success.count - before.inference_stats.success.count, 5)
        self.assertEqual(after.inference_count - before.inference_count, 5 * len(request["candidates"]))
        self.assertGreater(after.inference_stats.compute_infer.ns, before.inference_stats.compute_infer.ns)
        self.assertGreater(after.inference_stats.success.ns, after.inference_stats.compute_infer.ns - 1)
        self.assertGreater(after.last_inference, 0)
        every = call(self.server, "ModelStatistics", pb.ModelStatisticsRequest()).model_stats
        self.assertEqual({model.name for model in every}, set(self.models))

    def test_a_wrong_request_is_told_what_is_wrong_with_it(self):
        good = tensors("steam", requests_of("steam")[0])
        count = len(requests_of("steam")[0]["candidates"])

        def changed(name, **changes):
            made = []
            for tensor in good:
                fields = dict(zip(("name", "datatype", "shape", "values"), tensor))
                made.append(tuple({**fields, **changes}.values()) if tensor[0] == name else tensor)
            return made

        values = {name: list(values) for name, _, _, values in good}
        lengths_shape, ids = next(t[2] for t in good if t[0] == "lengths"), len(values["indices"])
        other_user = values["dense"][:]
        other_user[7] += 1  # the first context input of the second row
        other_top = values["indices"][:]
        history = sum(values["lengths"][:count])
        other_top[history + 3] += 1  # `top3` of the second row
        cases = [
            ("no model", infer_request("other", good), CODE.NOT_FOUND, "there is no model 'other'"),
            ("a version", infer_request("steam", good, model_version="7"), CODE.NOT_FOUND, "version 7 is not served"),
            ("no version", infer_request("steam", good, model_version="x"), CODE.INVALID_ARGUMENT, "the version is 'x'"),
            ("an input", infer_request("steam", good + [("user", "FP32", [1], [1])]), CODE.INVALID_ARGUMENT, "there is no input 'user'"),
            ("twice", infer_request("steam", good + good[:1]), CODE.INVALID_ARGUMENT, "input 'dense' is given twice"),
            ("a type", infer_request("steam", changed("dense", datatype="INT64")), CODE.INVALID_ARGUMENT,
             "input 'dense' has the datatype 'INT64'; it takes FP32"),
            ("a shape", infer_request("steam", changed("indices", shape=[-1])), CODE.INVALID_ARGUMENT, "input 'indices' has the shape [-1]"),
            ("huge", infer_request("steam", changed("indices", shape=[1 << 40, 1 << 40])), CODE.INVALID_ARGUMENT, "input 'indices' has the shape"),
            ("raw bytes", infer_request("steam", changed("indices", shape=[ids + 1])), CODE.INVALID_ARGUMENT, "raw_input_contents has"),
            ("typed", infer_request("steam", changed("indices", shape=[ids + 1]), raw=False), CODE.INVALID_ARGUMENT, "int64_contents has"),
            ("no rows", infer_request("steam", []), CODE.INVALID_ARGUMENT, "there are no rows"),
            ("fewer lengths", infer_request("steam", changed("lengths", shape=[lengths_shape[0] * count - 1], values=values["lengths"][:-1])),
             CODE.INVALID_ARGUMENT, "lengths has"),
            ("longer", infer_request("steam", changed("lengths", values=values["lengths"][:-1] + [values["lengths"][-1] + 1])), CODE.INVALID_ARGUMENT,
             "add up to"),
            ("shorter", infer_request("steam", changed("lengths", values=values["lengths"][:-1] + [values["lengths"][-1] - 1])), CODE.INVALID_ARGUMENT,
             "lengths adds up to"),
            ("negative", infer_request("steam", changed("lengths", values=[-1] + values["lengths"][1:])), CODE.INVALID_ARGUMENT, "lengths[0] is -1"),
            ("NaN", infer_request("steam", changed("dense", values=[float("nan")] * len(values["dense"]))), CODE.INVALID_ARGUMENT, "nan"),
            ("two users", infer_request("steam", changed("dense", values=other_user)), CODE.INVALID_ARGUMENT, "row 1 has another value than row 0"),
            ("two histories", infer_request("steam", changed("indices", values=other_top)), CODE.INVALID_ARGUMENT, "'top3' is of the context"),
            ("weights", infer_request("steam", [t for t in good if t[0] != "weights"]), CODE.INVALID_ARGUMENT, "weights"),
            ("an output", infer_request("steam", good, outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="scores")]), CODE.INVALID_ARGUMENT,
             "output 'scores' is not there"),
            ("a long id", infer_request("steam", good, id="x" * 129), CODE.INVALID_ARGUMENT, "at most 128"),
        ]
        shared = infer_request("steam", good)
        shared.inputs[0].parameters["shared_memory_region"].string_param = "r"
        both = infer_request("steam", good)
        both.inputs[0].contents.fp32_contents.append(1)
        fewer = infer_request("steam", good)
        del fewer.raw_input_contents[-1]
        priority = infer_request("steam", good)
        priority.parameters["priority"].string_param = "urgent"
        classes = infer_request("steam", good, outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="logits")])
        classes.outputs[0].parameters["classification"].int64_param = 3
        cases += [("shared memory", shared, CODE.UNIMPLEMENTED, "shared memory"), ("both", both, CODE.INVALID_ARGUMENT, "give one of them"),
                  ("fewer raw", fewer, CODE.INVALID_ARGUMENT, "raw_input_contents for"), ("priority", priority, CODE.INVALID_ARGUMENT, "urgent"),
                  ("classes", classes, CODE.UNIMPLEMENTED, "classification")]
        for what, request, code, text in cases:
            with self.subTest(what):
                got, details = self.error(request)
                self.assertEqual(got, code, details)
                self.assertIn(text, details)
        self.infer(infer_request("steam", good))

    def test_priority_and_timeout_are_heeded(self):
        request = infer_request("dot", tensors("dot", requests_of("dot")[0]))
        request.parameters["priority"].string_param = "batch"
        request.parameters["timeout"].int64_param = 60_000_000
        self.infer(request)
        request.parameters["timeout"].int64_param = 1
        self.assertEqual(self.error(request)[0], CODE.DEADLINE_EXCEEDED)

    def test_damaged_requests_cost_nobody_else_anything(self):
        rng = random.Random(seed())
        good = infer_request("steam", tensors("steam", requests_of("steam")[1])).SerializeToString()
        method = self.server.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        codes = set()
        for _ in range(300):
            damaged = bytearray(good)
            for _ in range(rng.randrange(1, 4)):
                damaged[rng.randrange(min(300, len(damaged)))] = rng.randrange(256)
            try:
                method(bytes(damaged), timeout=SECONDS)
                codes.add(CODE.OK)
            except grpc.RpcError as error:
                codes.add(error.code())
        self.assertLessEqual(codes, {CODE.OK, CODE.INVALID_ARGUMENT, CODE.NOT_FOUND, CODE.RESOURCE_EXHAUSTED, CODE.UNIMPLEMENTED, CODE.DEADLINE_EXCEEDED})
        self.assertIn(CODE.INVALID_ARGUMENT, codes)
        self.infer(infer_request("steam", tensors("steam", requests_of("steam")[1])))


if __name__ == "__main__":
    main()
