"""What a user of Triton's Python client would write. Run by test_triton.py in an environment that has it:

    triton_client.py HOST:PORT INPUT.json

INPUT.json: {"model": name, "inputs": [[name, datatype, shape, values], ...]}. Prints what the server said as JSON."""

import json
import queue
import sys

import numpy
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

target, path = sys.argv[1:]
with open(path, encoding="utf-8") as file:
    asked = json.load(file)
model, types = asked["model"], {"FP32": numpy.float32, "INT32": numpy.int32, "INT64": numpy.int64}
client = triton.InferenceServerClient(target)

inputs = []
for name, datatype, shape, values in asked["inputs"]:
    tensor = triton.InferInput(name, shape, datatype)
    tensor.set_data_from_numpy(numpy.asarray(values, types[datatype]).reshape(shape))
    inputs.append(tensor)
whole = client.infer(model, inputs, request_id="a-1", client_timeout=60)
some = client.infer(model, inputs, model_version="1", outputs=[triton.InferRequestedOutput("logits")], timeout=60_000_000)
done = queue.Queue()
client.async_infer(model, inputs, callback=lambda result, error: done.put((result, error)))
later, error = done.get(timeout=60)


def refused(call, *arguments):
    try:
        call(*arguments)
        return None
    except InferenceServerException as error:
        return error.status()


print(json.dumps({
    "ready": [client.is_server_live(), client.is_server_ready(), client.is_model_ready(model), client.is_model_ready(model, "1")],
    "server": client.get_server_metadata().name,
    "inputs": {tensor.name: list(tensor.shape) for tensor in client.get_model_metadata(model).inputs},
    "optional": [tensor.name for tensor in client.get_model_config(model).config.input if tensor.optional],
    "index": [[entry.name, entry.version, entry.state] for entry in client.get_model_repository_index().models],
    "id": whole.get_response().id,
    "probabilities": whole.as_numpy("probabilities").tolist(),
    "logits": some.as_numpy("logits").tolist(),
    "no_probabilities": some.as_numpy("probabilities") is None,
    "later": error is None and later.as_numpy("logits").tolist() == some.as_numpy("logits").tolist(),
    "counted": client.get_inference_statistics(model).model_stats[0].inference_stats.success.count,
    "load": refused(client.load_model, model),
    "unload": refused(client.unload_model, model),
    "unknown": refused(client.get_model_metadata, "other"),
}))
