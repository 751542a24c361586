#!/usr/bin/python3
"""TorchRec's prediction service: requests as its client packs them, and the scores of Rank."""

import random
import unittest

import grpc
import numpy

from rankd_fixture import RankdServer, TIME_SCALE, main, rank_request, repository_of, requests_of, seed
from row_requests import prediction_request
import predictor_pb2 as pb

CODE = grpc.StatusCode
SECONDS = 20 * TIME_SCALE


def predict(server, request, model=None):
    method = server.channel.unary_unary("/predictor.Predictor/Predict", pb.PredictionRequest.SerializeToString, pb.PredictionResponse.FromString)
    return {name: list(values.data) for name, values in
            method(request, timeout=SECONDS, metadata=[("model", model)] if model else None).predictions.items()}


class TestPredictor(unittest.TestCase):
    models = ("steam", "dot", "cat", "dcn_v2")

    @classmethod
    def setUpClass(cls):
        cls.server = RankdServer(repository_of(*cls.models), "--predictor-model", "dot")
        cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def error(self, request, model=None, server=None):
        with self.assertRaises(grpc.RpcError) as caught:
            predict(server or self.server, request, model)
        return caught.exception.code(), caught.exception.details()

    def test_predictions_are_rank_s_probabilities_head_by_head(self):
        rng = random.Random(seed())
        for model in self.models:
            request = rng.choice(requests_of(model))
            ranked = self.server.stub.Rank(rank_request(model, request), timeout=SECONDS)
            heads = len(ranked.heads)
            expected = {head: list(ranked.probabilities)[i::heads] for i, head in enumerate(ranked.heads)}
            expected["default"] = expected[ranked.heads[0]]
            for types in ((numpy.int32, numpy.int64), (numpy.int64, numpy.int64), (numpy.int32, numpy.int32)):
                with self.subTest(model=model, types=types):
                    self.assertEqual(predict(self.server, prediction_request(model, request, *types), model), expected)

    def test_the_model_is_that_of_the_metadata_or_the_option_or_the_only_one(self):
        request = prediction_request("dot", requests_of("dot")[0])
        self.assertEqual(predict(self.server, request), predict(self.server, request, "dot"))
        self.assertEqual(self.error(request, "other")[0], CODE.NOT_FOUND)
        with RankdServer(repository_of("dot")) as only:
            self.assertEqual(predict(only, request), predict(self.server, request))
        with RankdServer(repository_of("steam", "dot")) as several:
            code, details = self.error(request, server=several)
            self.assertEqual(code, CODE.INVALID_ARGUMENT)
            self.assertIn("predictor_model", details)

    def test_a_wrong_request_is_told_what_is_wrong_with_it(self):
        def changed(change):
            request = prediction_request("steam", requests_of("steam")[0])
            change(request)
            return request

        def two_users(request):
            values = numpy.frombuffer(request.float_features.values, numpy.float32).copy()
            values[len(values) // request.batch_size] += 1
            request.float_features.values = values.tobytes()

        cases = [("no rows", lambda r: setattr(r, "batch_size", 0), "batch_size is 0"),
                 ("more rows", lambda r: setattr(r, "batch_size", r.batch_size + 1), "float_features.values has"),
                 ("negative", lambda r: setattr(r, "batch_size", -1), "batch_size is -1"),
                 ("dense", lambda r: setattr(r.float_features, "num_features", 1), "float_features.num_features is 1"),
                 ("half a float", lambda r: setattr(r.float_features, "values", r.float_features.values[:-1]), "float_features.values has"),
                 ("features", lambda r: setattr(r.id_list_features, "num_features", 1), "id_list_features.num_features is 1"),
                 ("no weights", lambda r: r.ClearField("id_score_list_features"), "id_score_list_features.num_features is 0"),
                 ("lengths", lambda r: setattr(r.id_list_features, "lengths", r.id_list_features.lengths[:-4]), "id_list_features.lengths has"),
                 ("values", lambda r: setattr(r.id_list_features, "values", r.id_list_features.values[:-8]), "id_list_features.values has"),
                 ("a length", lambda r: setattr(r.id_list_features, "lengths", b"\xff" * len(r.id_list_features.lengths)), "id_list_features[0] is -1"),
                 ("weights", lambda r: setattr(r.id_score_list_features, "weights", b"\0" * 4), "id_score_list_features.weights has"),
                 ("other inputs", lambda r: setattr(r.embedding_features, "values", b"\0" * 4), "must be empty"),
                 ("two users", two_users, "row 1 has another value than row 0")]
        for what, change, text in cases:
            with self.subTest(what):
                code, details = self.error(changed(change), "steam")
                self.assertEqual(code, CODE.INVALID_ARGUMENT, details)
                self.assertIn(text, details)


if __name__ == "__main__":
    main()
