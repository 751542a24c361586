#!/usr/bin/python3
"""RankStream: many requests on one call."""

import queue
import random
import signal
import threading
import time
import unittest

import grpc

from rankd_fixture import RankdServer, TIME_SCALE, main, rank_request, repository_of, requests_of, seed, wait_for
import rankd_pb2 as pb

CODE = grpc.StatusCode
SECONDS = 30 * TIME_SCALE
PATH = "/rankd.v1.Ranking/RankStream"


def method_of(channel):
    return channel.stream_stream(PATH, pb.RankStreamRequest.SerializeToString, pb.RankStreamResponse.FromString)


def many(model, count):
    """Requests with ids from 1, of different sizes."""
    some = requests_of(model)
    return [pb.RankStreamRequest(id=number + 1, request=rank_request(model, some[number % len(some)], include_logits=True)) for number in range(count)]


class TestRankStream(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = RankdServer(repository_of("steam", "dot"), "--max-stream-requests", 8, "--queue-target-us", 0)
        cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def setUp(self):
        self.call = method_of(self.server.channel)

    def test_every_request_is_answered_once_with_the_scores_of_rank(self):
        requests = many("steam", 200) + [pb.RankStreamRequest(id=1000 + number, request=rank_request("dot", request, include_logits=True))
                                         for number, request in enumerate(requests_of("dot"))]
        random.Random(seed()).shuffle(requests)
        stream = self.call(iter(requests), timeout=SECONDS)
        answers = {answer.id: answer for answer in stream}
        self.assertEqual(stream.code(), CODE.OK)
        self.assertEqual(set(answers), {request.id for request in requests})
        for request in requests[::20]:
            self.assertFalse(answers[request.id].HasField("error"))
            self.assertEqual(answers[request.id].response, self.server.stub.Rank(request.request, timeout=SECONDS))

    def test_an_error_is_its_request_s_own_and_the_stream_goes_on(self):
        good = many("dot", 1)[0]
        unknown = pb.RankStreamRequest(id=2, request=pb.RankRequest(model="ö" * 100, num_candidates=1))
        wrong = pb.RankStreamRequest(id=3, request=rank_request("dot", requests_of("dot")[0], order_by="nothing"))
        late = pb.RankStreamRequest(id=4, request=rank_request("dot", requests_of("dot")[0]), timeout_us=1)
        empty = pb.RankStreamRequest(id=5)
        costs = pb.RankStreamRequest(id=6, request=rank_request("dot", requests_of("dot")[0], include_costs=True), timeout_us=60_000_000)
        stream = self.call(iter([good, unknown, wrong, late, empty, costs]), timeout=SECONDS)
        answers = {answer.id: answer for answer in stream}
        self.assertEqual(stream.code(), CODE.OK)
        self.assertEqual({number: answer.error.code for number, answer in answers.items()},
                         {1: 0, 2: CODE.NOT_FOUND.value[0], 3: CODE.INVALID_ARGUMENT.value[0], 4: CODE.DEADLINE_EXCEEDED.value[0],
                          5: CODE.INVALID_ARGUMENT.value[0], 6: 0})
        self.assertIn("order_by is 'nothing'", answers[3].error.message)
        self.assertEqual(answers[5].error.message, "request is not set")
        self.assertGreater(answers[6].response.costs.total_us, 0)
        self.assertEqual(len(answers[6].response.probabilities), len(answers[1].response.probabilities))
        self.assertFalse(answers[2].HasField("response"))

    def test_a_request_that_is_none_within_a_good_message_costs_that_request_alone(self):
        messages = [b"\x08\x05\x12\x02\xff\xff", b"\x08\x06\x12\x03\x0a\x01\xff", many("dot", 1)[0].SerializeToString()]
        stream = self.server.channel.stream_stream(PATH)(iter(messages), timeout=SECONDS)
        answers = {answer.id: answer for answer in map(pb.RankStreamResponse.FromString, stream)}
        self.assertEqual({number: answer.error.code for number, answer in answers.items()}, {5: 3, 6: 3, 1: 0})
        self.assertIn("model is not valid UTF-8", answers[6].error.message)

    def test_no_requests_and_no_answers(self):
        stream = self.call(iter(()), timeout=SECONDS)
        self.assertEqual((list(stream), stream.code()), ([], CODE.OK))

    def test_a_message_that_is_none_ends_the_stream(self):
        stream = self.server.channel.stream_stream(PATH)(iter([many("dot", 1)[0].SerializeToString(), b"\xff\xff"]), timeout=SECONDS)
        with self.assertRaises(grpc.RpcError):
            list(stream)
        self.assertEqual(stream.code(), CODE.INVALID_ARGUMENT)

    def test_a_conversation_may_wait_for_each_answer(self):
        questions = queue.Queue()
        stream = self.call(iter(questions.get, None), timeout=SECONDS)
        for request in many("dot", 20):
            questions.put(request)
            self.assertEqual(next(stream).id, request.id)
        questions.put(None)
        self.assertEqual((list(stream), stream.code()), ([], CODE.OK))

    def test_a_stream_whose_answers_are_not_read_takes_bounded_memory_and_is_answered_when_they_are(self):
        request = requests_of("steam")[0]
        candidates = request["candidates"] * 30
        large = rank_request("steam", {**request, "candidates": candidates}, include_logits=True, top_k=len(candidates), value_model="lasting",
                             candidate_ids=range(len(candidates)))
        count = 300  # with answers of 45 kB each: far more than fits into windows and buffers
        stream = self.call((pb.RankStreamRequest(id=number, request=large) for number in range(count)), timeout=4 * SECONDS)
        before = self.server.stub.GetStatus(pb.StatusRequest(), timeout=SECONDS).requests

        def settled():
            seen = [self.server.stub.GetStatus(pb.StatusRequest(), timeout=SECONDS).requests for _ in range(2) if time.sleep(0.1 * TIME_SCALE) is None]
            return seen[0] == seen[1] > before
        wait_for(settled, "the server has stopped reading")
        self.assertLess(seen := self.server.stub.GetStatus(pb.StatusRequest(), timeout=SECONDS).requests - before, count, "it went on")
        self.assertGreater(seen, 0)
        self.assertEqual(sorted(answer.id for answer in stream), list(range(count)))
        self.assertEqual(stream.code(), CODE.OK)

    def test_streams_that_are_given_up_leave_nothing_behind(self):
        rng = random.Random(seed())
        for _ in range(30):
            stream = self.call(iter(many("steam", 50)), timeout=SECONDS)
            for _ in range(rng.randrange(4)):
                next(stream)
            stream.cancel()
        self.assertEqual(len(list(self.call(iter(many("steam", 10)), timeout=SECONDS))), 10)
        wait_for(lambda: self.server.stub.GetStatus(pb.StatusRequest(), timeout=SECONDS).queued == 0, "nothing is queued any more")

    def test_a_stream_s_deadline_ends_it(self):
        questions = queue.Queue()
        stream = self.call(iter(questions.get, None), timeout=0.5 * TIME_SCALE)
        self.assertEqual(stream.code(), CODE.DEADLINE_EXCEEDED)
        questions.put(None)

    def test_when_the_server_drains_what_was_taken_is_answered_and_the_stream_ends(self):
        with RankdServer(repository_of("steam"), "--workers", 1, "--max-stream-requests", 64, "--queue-target-us", 0) as server:
            questions, answers, codes = queue.Queue(), [], []

            def client():
                stream = method_of(server.channel)(iter(questions.get, None), timeout=4 * SECONDS)
                try:
                    answers.extend(answer for answer in stream)
                except grpc.RpcError:
                    pass
                codes.append(stream.code())
            thread = threading.Thread(target=client)
            thread.start()
            for request in many("steam", 300):
                questions.put(request)
            wait_for(lambda: server.stub.GetStatus(pb.StatusRequest(), timeout=SECONDS).requests > 20, "it is at work")
            server.process.send_signal(signal.SIGTERM)
            thread.join(SECONDS)
            self.assertEqual(codes, [CODE.UNAVAILABLE])
            self.assertTrue(answers)
            self.assertEqual({answer.error.code for answer in answers}, {0})
            self.assertEqual(server.process.wait(SECONDS), 0)
            self.assertIn("every open call was answered", server.log())
            questions.put(None)


if __name__ == "__main__":
    main()
