"""The model in ONNX Runtime: a graph made by hand, optimised as far as it can, run with inputs and outputs bound beforehand.

    fp32   tables apart or as one
    int8   layers quantised dynamically by ONNX Runtime's own tool, with a scale per output; rows of 8 bits as that tool makes them, with one scale for the
           whole table, which is less accurate than a scale per row and the least work

ONNX has no embedding bag: bags of many ids are padded to the longest one in the batch, and the padding has weight 0."""

import contextlib
import logging
import tempfile
import warnings

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnxruntime import quantization

import package

VERSION = f"ONNX Runtime {onnxruntime.__version__}"
OPSET = 17


def _towers(model):
    """From "dense" and "pooled" [rows, features, dim] to "logits": the nodes and their constants."""
    nodes, constants = [], {}

    def add(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def mlp(name, layers, x, relu_last):
        for i, (weight, bias) in enumerate(layers):
            constants[f"{name}.{i}.weight"], constants[f"{name}.{i}.bias"] = numpy.ascontiguousarray(weight.T), bias
            last = i + 1 == len(layers)
            product = add("MatMul", [x, f"{name}.{i}.weight"], f"{name}.{i}.product")
            relu = relu_last or not last
            x = add("Add", [product, f"{name}.{i}.bias"], f"{name}.{i}.sum" if relu else "logits")
            x = add("Relu", [x], f"{name}.{i}") if relu else x
        return x

    vectors = len(model.features) + 1
    constants.update(one=numpy.array([1], dtype=numpy.int64), flat=numpy.array([-1, vectors * vectors], dtype=numpy.int64), pairs=model.pairs)
    x = mlp("bottom", model.bottom, "dense", True)
    every = add("Concat", [add("Unsqueeze", [x, "one"], "x3"), "pooled"], "every", axis=1)
    dots = add("MatMul", [every, add("Transpose", [every], "turned", perm=[0, 2, 1])], "dots")
    chosen = add("Gather", [add("Reshape", [dots, "flat"], "flat_dots"), "pairs"], "chosen", axis=1)
    mlp("top", model.top, add("Concat", [x, chosen], "top_in", axis=1), False)
    return nodes, constants


def _value(name, dtype, *shape):
    return helper.make_tensor_value_info(name, dtype, shape)


def _towers_graph(model, quantized):
    nodes, constants = _towers(model)
    graph = helper.make_graph(nodes, "dlrm", [_value("dense", TensorProto.FLOAT, "B", model.bottom[0][0].shape[1]),
                                              _value("pooled", TensorProto.FLOAT, "B", len(model.features), model.dim)],
                              [_value("logits", TensorProto.FLOAT, "B", model.heads)],
                              [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    if quantized:
        made = _quantized(made)
    return made


def _quantized(made):
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onnx.save(made, f"{folder}/fp32.onnx")
        quantization.quantize_dynamic(f"{folder}/fp32.onnx", f"{folder}/int8.onnx", op_types_to_quantize=["MatMul"], per_channel=True,
                                      weight_type=quantization.QuantType.QInt8, nodes_to_exclude=["dots"],
                                      extra_options={"MatMulConstBOnly": True})
        return onnx.load(f"{folder}/int8.onnx")


class Variant:
    """inputs: what `prepare` binds besides dense; nodes: from them to "pooled"; tables: arrays that stay where they are."""

    def __init__(self, name, model, quantized, threads, one_table, single):
        self.name, self.model, self.one_table, self.single = name, model, one_table, single
        table, constants = model.table, {}
        if quantized:
            low, high = min(float(table.min()), 0.0), max(float(table.max()), 0.0)
            scale = (high - low) / 255
            zero = round(-low / scale)
            codes = numpy.empty(table.shape, numpy.uint8)
            for start in range(0, len(table), 1 << 16):
                codes[start:start + (1 << 16)] = numpy.clip(numpy.rint(table[start:start + (1 << 16)] / scale) + zero, 0, 255)
            table = codes
            constants = {"row_scale": numpy.float32(scale), "row_zero": numpy.uint8(zero)}
        self.tables = {"table": table} if one_table else {f"table.{f}": table[feature.base:feature.base + feature.rows]
                                                          for f, feature in enumerate(model.features)}
        graph = _towers_graph(model, quantized)
        nodes, inputs = self._lookup(quantized)
        del graph.graph.input[1]  # pooled
        # Tables are inputs, so that they stay where they are: a model file of more than 2 GiB would not load.
        inputs += [_value(key, TensorProto.UINT8 if quantized else TensorProto.FLOAT, *value.shape) for key, value in self.tables.items()]
        graph.graph.input.extend(inputs)
        graph.graph.initializer.extend(onnx.numpy_helper.from_array(numpy.asarray(value), key) for key, value in constants.items())
        every = nodes + list(graph.graph.node)
        del graph.graph.node[:]
        graph.graph.node.extend(every)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        self.values = {key: onnxruntime.OrtValue.ortvalue_from_numpy(value) for key, value in self.tables.items()}
        self.session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def _lookup(self, quantized):
        """Nodes that make "pooled", and the inputs that they read."""
        nodes, inputs, count = [], [], len(self.model.features)

        def rows(table, ids, output):
            if not quantized:
                nodes.append(helper.make_node("Gather", [table, ids], [output], axis=0))
                return
            nodes.append(helper.make_node("Gather", [table, ids], [output + ".codes"], axis=0))
            nodes.append(helper.make_node("DequantizeLinear", [output + ".codes", "row_scale", "row_zero"], [output]))

        if self.one_table:
            inputs.append(_value("ids", TensorProto.INT64, "B", count))
            rows("table", "ids", "pooled")
            return nodes, inputs
        for f in range(count):
            inputs.append(_value(f"ids.{f}", TensorProto.INT64, "B", f"L{f}"))
            rows(f"table.{f}", f"ids.{f}", f"rows.{f}")
            if not self.single[f]:  # [rows, 1, ids] x [rows, ids, dim]
                inputs.append(_value(f"weights.{f}", TensorProto.FLOAT, "B", 1, f"L{f}"))
                nodes.append(helper.make_node("MatMul", [f"weights.{f}", f"rows.{f}"], [f"pooled.{f}"]))
        nodes.append(helper.make_node("Concat", [f"rows.{f}" if self.single[f] else f"pooled.{f}" for f in range(count)], ["pooled"], axis=1))
        return nodes, inputs

    def arrays(self, batch):
        made = {"dense": batch.dense}
        if self.one_table:
            made["ids"] = package.merged(batch, self.model)[0].reshape(batch.rows, -1)
            return made
        for f, (ids, lengths, weights) in enumerate(batch.bags):
            longest = max(int(lengths.max()), 1)
            there = numpy.arange(longest)[None, :] < lengths[:, None]
            made[f"ids.{f}"] = numpy.zeros((batch.rows, longest), numpy.int64)
            made[f"ids.{f}"][there] = ids
            if not self.single[f]:
                padded = numpy.zeros((batch.rows, longest), numpy.float32)
                padded[there] = 1 if weights is None else weights
                made[f"weights.{f}"] = padded[:, None, :]
        return made

    def prepare(self, batch):
        binding = self.session.io_binding()
        kept = {key: onnxruntime.OrtValue.ortvalue_from_numpy(numpy.ascontiguousarray(value)) for key, value in self.arrays(batch).items()}
        for key, value in (*kept.items(), *self.values.items()):
            binding.bind_ortvalue_input(key, value)
        output = onnxruntime.OrtValue.ortvalue_from_shape_and_type([batch.rows, self.model.heads], numpy.float32, "cpu")
        binding.bind_ortvalue_output("logits", output)
        return binding, kept, output


def variants(model, number_format, threads, batches):
    """batches: all that will be run, to see what bags they have."""
    quantized = number_format == "int8"
    single = [all(of_batch) for of_batch in zip(*(package.single(batch) for batch in batches))]
    made = [Variant("tables apart", model, quantized, threads, False, single)]
    if all(single):
        made.append(Variant("one table", model, quantized, threads, True, single))
    return made


def call(variant, inputs):
    variant.session.run_with_iobinding(inputs[0])


def logits(variant, inputs):
    call(variant, inputs)
    return inputs[2].numpy()


guard = contextlib.nullcontext
