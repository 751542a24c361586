"""A candidate's score has the same bits whatever it shares a batch with, wherever it stands and whichever worker scores it."""

import json
import random
import struct
import threading
import unittest

import grpc
import rankd_fixture as fixture

CLIENTS, ROUNDS = 6, 12


def bits(values):
    return [struct.pack("<f", value) for value in values]


class TestFidelity(unittest.TestCase):
    """The same candidates, alone and in requests of all sizes, from many clients at once, against rankpack score."""

    def serve(self, name, towers):
        repository = fixture.scratch("fidelity")
        (repository / name).mkdir()
        package = fixture.repository_of(name) / name / "1"
        if towers == "fp32":
            fixture.run("/bin/cp", "-r", package, repository / name / "1")
        else:
            fixture.rankpack("quantize", package, "--rows", "int8", "--towers", towers, "--output", repository / name / "1")
        return repository

    def expected(self, package, folder):
        output = fixture.rankpack("score", package, "--requests", folder / "requests.jsonl").stdout
        return {line["id"]: line["logits"] for line in map(json.loads, output.splitlines())}

    def client(self, target, name, requests, expected, rng, answers):
        """Appends, for each answer, None or what is wrong with it, and whether it shared a batch or was cut into several."""
        with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = fixture.Stub(channel)
            for _ in range(ROUNDS):
                request = rng.choice(requests)
                count = min(rng.choice([1, 1, 2, 3, 7, 20, 1000]), len(request["candidates"]))
                chosen = rng.sample(range(len(request["candidates"])), count)
                part = dict(request, candidates=[request["candidates"][i] for i in chosen])
                request_of_part = fixture.rank_request(name, part, include_logits=True, include_costs=True)
                answer = stub.Rank(request_of_part, timeout=60, wait_for_ready=True)  # some of grpcio's first connects fail, among many at once
                wanted = [logit for i in chosen for logit in expected[request["id"]][i]]
                wrong = None if bits(answer.logits) == bits(wanted) else f"{request['id']}, candidates {chosen}: {list(answer.logits)} instead of {wanted}"
                answers.append((wrong, answer.costs.batch_candidates > count, answer.costs.batches > 1))

    def check(self, name, towers, *options):
        seed = fixture.seed()
        folder = fixture.reference_models()[name]
        repository = self.serve(name, towers)
        requests = fixture.requests_of(name)
        expected, answers = self.expected(repository / name / "1", folder), []
        with fixture.RankdServer(repository, *options) as server:
            clients = [threading.Thread(target=self.client, args=(server.target, name, requests, expected, random.Random(seed + i), answers))
                       for i in range(CLIENTS)]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
        self.assertEqual(len(answers), CLIENTS * ROUNDS, "a client failed")
        self.assertEqual([wrong for wrong, _, _ in answers if wrong is not None], [], f"{name} {towers} {options}")
        return sum(shared for _, shared, _ in answers), sum(cut for _, _, cut in answers)

    def test_many_workers_and_small_batches(self):
        shared = cut = 0
        for name in "dot", "cat", "dcn_v2", "steam":
            for towers in "fp32", "bf16", "int8":
                with self.subTest(model=name, towers=towers):
                    found = self.check(name, towers, "--workers", "4", "--max-batch", "16", "--in-place-us", "0")
                    shared, cut = shared + found[0], cut + found[1]
        self.assertGreater(shared, 0, "no request shared a batch with another: nothing was tested")
        self.assertGreater(cut, 0, "no request was cut into batches")

    def test_by_default(self):
        for towers in "fp32", "int8":
            with self.subTest(towers=towers):
                self.check("steam", towers)


if __name__ == "__main__":
    fixture.main()
