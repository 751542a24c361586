#!/usr/bin/python3
"""The services that stock tools look for: health checks that are watched, and reflection as grpcurl asks for it."""

import os
import queue
import shutil
import signal
import threading
import unittest

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool

from rankd_fixture import RankdServer, Stub, TIME_SCALE, main, rank_request, repository_of, requests_of, scratch
import health_pb2
import reflection_pb2
import reflection_v1alpha_pb2

CODE = grpc.StatusCode
STATE = health_pb2.HealthCheckResponse
SERVICES = {"rankd.v1.Ranking", "rankd.v1.Admin", "grpc.health.v1.Health", "inference.GRPCInferenceService", "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection"}
SECONDS = 20 * TIME_SCALE


def watch(channel, name):
    method = channel.unary_stream("/grpc.health.v1.Health/Watch", health_pb2.HealthCheckRequest.SerializeToString, STATE.FromString)
    return method(health_pb2.HealthCheckRequest(service=name), timeout=6 * SECONDS)


def health_list(channel):
    method = channel.unary_unary("/grpc.health.v1.Health/List", health_pb2.HealthListRequest.SerializeToString, health_pb2.HealthListResponse.FromString)
    return {name: state.status for name, state in method(health_pb2.HealthListRequest(), timeout=SECONDS).statuses.items()}


class TestHealth(unittest.TestCase):
    def test_list_has_the_server_its_services_and_its_models(self):
        with RankdServer(repository_of("steam", "dot")) as server:
            states = health_list(server.channel)
            self.assertLessEqual(SERVICES | {"", "steam", "dot"}, set(states))
            self.assertEqual(set(states.values()), {STATE.SERVING})
            for name in states:
                self.assertEqual(server.stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=SECONDS).status, STATE.SERVING)

    def test_a_watch_begins_with_the_state_and_ends_with_not_serving_when_the_server_drains(self):
        with RankdServer(repository_of("dot")) as server:
            watched = {name: watch(server.channel, name) for name in ("", "dot", "rankd.v1.Ranking", "somebody.else")}
            for name, call in watched.items():
                self.assertEqual(next(call).status, STATE.SERVICE_UNKNOWN if name == "somebody.else" else STATE.SERVING, name)
            server.process.send_signal(signal.SIGTERM)
            for name, call in watched.items():
                states = []
                with self.assertRaises(grpc.RpcError) as ended:
                    for answer in call:
                        states.append(answer.status)
                self.assertEqual(states, [] if name == "somebody.else" else [STATE.NOT_SERVING], name)
                self.assertEqual(ended.exception.code(), CODE.UNAVAILABLE, name)
            self.assertEqual(server.process.wait(SECONDS), 0)
            self.assertIn("every open call was answered", server.log())

    def test_a_watch_hears_of_damage_as_the_first_request_finds_it_and_other_models_do_not(self):
        repository = scratch("repository")
        for model in ("steam", "dot"):
            shutil.copytree(repository_of(model) / model, repository / model)
        for path in repository.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        with RankdServer(repository, "--row-memory", "mapped", "--scrub-interval-s", 0) as server:
            steam, dot = watch(server.channel, "steam"), watch(server.channel, "dot")
            self.assertEqual([next(steam).status, next(dot).status], [STATE.SERVING, STATE.SERVING])
            for rows in (repository / "steam/1").glob("*.rows"):
                os.truncate(rows, 0)
            with self.assertRaises(grpc.RpcError) as lost:
                server.stub.Rank(rank_request("steam", requests_of("steam")[0]), timeout=SECONDS)
            self.assertEqual(lost.exception.code(), CODE.DATA_LOSS)
            self.assertEqual(next(steam).status, STATE.NOT_SERVING)
            heard = queue.Queue()
            threading.Thread(target=lambda: heard.put(next(dot, None).status), daemon=True).start()
            self.assertEqual(health_list(server.channel)["dot"], STATE.SERVING)
            self.assertTrue(heard.empty())
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(heard.get(timeout=SECONDS), STATE.NOT_SERVING)

    def test_watches_that_are_given_up_leave_nothing_behind(self):
        with RankdServer(repository_of("dot")) as server:
            for number in range(3):
                with grpc.insecure_channel(server.target, options=[("grpc.enable_http_proxy", 0), ("rankd.test", number)]) as channel:
                    calls = [watch(channel, "dot") for _ in range(100)]
                    for call in calls:
                        self.assertEqual(next(call).status, STATE.SERVING)
                    for call in calls[::2]:
                        call.cancel()
                    Stub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.process.wait(SECONDS), 0)


class Reflection:
    """The client's side of one reflection stream."""

    def __init__(self, channel, module=reflection_pb2):
        self.module, self.questions = module, queue.Queue()
        package = module.DESCRIPTOR.package
        method = channel.stream_stream(f"/{package}.ServerReflection/ServerReflectionInfo", module.ServerReflectionRequest.SerializeToString,
                                       module.ServerReflectionResponse.FromString)
        self.answers = method(iter(self.questions.get, None), timeout=6 * SECONDS)

    def ask(self, **question):
        self.questions.put(self.module.ServerReflectionRequest(host="here", **question))
        return next(self.answers)

    def end(self):
        self.questions.put(None)
        return list(self.answers), self.answers.code()


class TestReflection(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = RankdServer(repository_of("dot"))
        cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def files(self, answer):
        return [descriptor_pb2.FileDescriptorProto.FromString(data) for data in answer.file_descriptor_response.file_descriptor_proto]

    def test_both_versions_list_what_is_served_and_describe_all_of_it(self):
        for module in (reflection_pb2, reflection_v1alpha_pb2):
            asked = Reflection(self.server.channel, module)
            listed = asked.ask(list_services="*")
            self.assertEqual(listed.original_request.list_services, "*")
            self.assertEqual(listed.valid_host, "here")
            names = {service.name for service in listed.list_services_response.service}
            self.assertLessEqual(SERVICES, names)
            pool = descriptor_pool.DescriptorPool()  # what a client knows without any .proto file
            added = set()
            for name in sorted(names):
                for file in self.files(asked.ask(file_containing_symbol=name)):
                    if file.name not in added:
                        pool.Add(file)
                        added.add(file.name)
            for name in names:
                for method in pool.FindServiceByName(name).methods:
                    self.assertTrue(method.input_type.full_name and method.output_type.full_name)
            self.assertEqual(asked.end(), ([], CODE.OK))
            rank = pool.FindMessageTypeByName("rankd.v1.RankRequest")
            self.assertEqual(rank.fields_by_name["num_candidates"].number, 6)

    def test_every_method_that_is_described_is_there(self):
        asked = Reflection(self.server.channel)
        names = [service.name for service in asked.ask(list_services="").list_services_response.service]
        for name in names:
            for file in self.files(asked.ask(file_containing_symbol=name)):
                for service in file.service:
                    for method in service.method:
                        path = f"/{file.package}.{service.name}/{method.name}"
                        if f"{file.package}.{service.name}" not in names:
                            continue
                        call = self.server.channel.stream_stream(path)(iter(()), timeout=0.5 * TIME_SCALE)
                        with self.subTest(path):
                            self.assertNotEqual(call.code(), CODE.UNIMPLEMENTED)
        asked.end()

    def test_files_are_found_by_name_and_by_all_that_they_define(self):
        asked = Reflection(self.server.channel)
        by_name = self.files(asked.ask(file_by_filename="rankd.proto"))
        self.assertEqual([file.name for file in by_name], ["rankd.proto"])
        for symbol, file in (("rankd.v1.Ranking", "rankd.proto"), ("rankd.v1.Ranking.Rank", "rankd.proto"), ("rankd.v1.ValueModel.Term", "rankd.proto"),
                             ("rankd.v1.ValueModel.Kind", "rankd.proto"), ("rankd.v1.RankRequest.top_k", "rankd.proto"),
                             ("rankd.v1.ValueModel.SUM_OF_LOGITS", "rankd.proto"), ("grpc.health.v1.Health.Watch", "health.proto"),
                             ("inference.ModelInferRequest.InferInputTensor", "inference.proto")):
            with self.subTest(symbol):
                self.assertEqual([each.name for each in self.files(asked.ask(file_containing_symbol=symbol))], [file])
        asked.end()

    def test_what_is_not_there_is_an_error_in_the_answer_and_the_stream_goes_on(self):
        asked = Reflection(self.server.channel)
        extension = reflection_pb2.ExtensionRequest(containing_type="rankd.v1.RankRequest", extension_number=100)
        for question, code in ((dict(file_by_filename="other.proto"), CODE.NOT_FOUND), (dict(file_containing_symbol="rankd.v1"), CODE.NOT_FOUND),
                               (dict(file_containing_symbol=""), CODE.NOT_FOUND), (dict(file_containing_symbol="ä" * 150), CODE.NOT_FOUND),
                               (dict(file_containing_extension=extension), CODE.NOT_FOUND), ({}, CODE.INVALID_ARGUMENT),
                               (dict(all_extension_numbers_of_type="rankd.v1.Nothing"), CODE.NOT_FOUND)):
            with self.subTest(str(question)):
                self.assertEqual(asked.ask(**question).error_response.error_code, code.value[0])
        numbers = asked.ask(all_extension_numbers_of_type="rankd.v1.RankRequest").all_extension_numbers_response
        self.assertEqual((numbers.base_type_name, list(numbers.extension_number)), ("rankd.v1.RankRequest", []))
        self.assertEqual(asked.end(), ([], CODE.OK))

    def test_a_message_that_is_none_ends_the_stream(self):
        method = self.server.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        call = method(iter([b"\xff\xff"]), timeout=SECONDS)
        self.assertEqual(call.code(), CODE.INVALID_ARGUMENT)

    def test_an_open_stream_does_not_hold_up_the_end(self):
        with RankdServer(repository_of("dot")) as server:
            asked = Reflection(server.channel)
            asked.ask(list_services="")
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.process.wait(SECONDS), 0)
            self.assertEqual(asked.answers.code(), CODE.UNAVAILABLE)
            asked.questions.put(None)


if __name__ == "__main__":
    main()
