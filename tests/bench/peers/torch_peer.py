"""The model in PyTorch, in every way that may be the fastest. A variant is a name, prepare(batch), which makes its inputs, and call(*inputs), the logits.

    fp32   tables apart or as one, eager, as frozen TorchScript, and compiled by inductor with frozen weights
    int8   rows of 8 bits with a scale and a bias each (FBGEMM's format), layers quantised dynamically with a scale per output, by each of the engines

Inductor gets fp32 alone: the operators of the int8 path are opaque to it."""

import warnings

import numpy
import torch

import package

F = torch.nn.functional
VERSION = f"PyTorch {torch.__version__}"
ENGINES = ("fbgemm", "onednn", "x86")


class Dense(torch.nn.Module):
    def __init__(self, layers, relu_last):
        super().__init__()
        self.layers = torch.nn.Sequential()
        for i, (weight, bias) in enumerate(layers):
            linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
            linear.weight.data, linear.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
            self.layers.append(linear)
            if relu_last or i + 1 < len(layers):
                self.layers.append(torch.nn.ReLU())

    def forward(self, x):
        return self.layers(x)


class DynamicInt8(torch.nn.Module):
    """What torch.ao's dynamic quantisation makes of a Linear with or without ReLU."""

    def __init__(self, weight, bias, relu):
        super().__init__()
        scales = torch.from_numpy(numpy.maximum(numpy.abs(weight).max(axis=1), 1e-8) / 127)
        rows = torch.quantize_per_channel(torch.from_numpy(weight), scales.double(), torch.zeros(len(weight), dtype=torch.long), 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(rows, torch.from_numpy(bias))
        self.run = torch.ops.quantized.linear_relu_dynamic if relu else torch.ops.quantized.linear_dynamic

    def forward(self, x):
        return self.run(x, self.packed)


def dense_int8(layers, relu_last):
    return torch.nn.Sequential(*(DynamicInt8(weight, bias, relu_last or i + 1 < len(layers)) for i, (weight, bias) in enumerate(layers)))


class Rows(torch.nn.Module):
    """All features at once, one row each."""

    def __init__(self, model, table):
        super().__init__()
        self.table = table

    def forward(self, ids):
        return F.embedding(ids, self.table)

    @staticmethod
    def prepare(batch, model):
        ids, _, _ = package.merged(batch, model)
        return (torch.from_numpy(ids.reshape(batch.rows, -1)),)


class Bags(torch.nn.Module):
    """All features at once, pooled."""

    def __init__(self, model, table):
        super().__init__()
        self.table, self.count, self.dim = table, len(model.features), model.dim

    def pool(self, ids, offsets, weights):
        return F.embedding_bag(ids, self.table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)

    def forward(self, ids, offsets, weights=None):
        return self.pool(ids, offsets, weights).view(-1, self.count, self.dim)

    @staticmethod
    def prepare(batch, model):
        return tuple(torch.from_numpy(array) for array in package.merged(batch, model) if array is not None)


class ByteBags(Bags):
    def pool(self, ids, offsets, weights):
        return torch.ops.quantized.embedding_bag_byte_rowwise_offsets(self.table, ids, offsets, False, 0, False, weights, None, True)


class Apart(torch.nn.Module):
    """A lookup for each feature, as models are written."""

    def __init__(self, model, table):
        super().__init__()
        self.tables = [table[feature.base:feature.base + feature.rows] for feature in model.features]
        self.weighted = [feature.weighted for feature in model.features]

    def pool(self, table, ids, offsets, weights):
        return F.embedding_bag(ids, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)

    def forward(self, *inputs):
        pooled, at = [], 0
        for table, weighted in zip(self.tables, self.weighted):
            pooled.append(self.pool(table, inputs[at], inputs[at + 1], inputs[at + 2] if weighted else None))
            at += 3 if weighted else 2
        return torch.stack(pooled, dim=1)

    @staticmethod
    def prepare(batch, model):
        made = []
        for ids, lengths, weights in batch.bags:
            made += [torch.from_numpy(ids), torch.from_numpy(numpy.concatenate([[0], numpy.cumsum(lengths)]))]
            made += [torch.from_numpy(weights)] if weights is not None else []
        return tuple(made)


class ByteApart(Apart):
    def pool(self, table, ids, offsets, weights):
        return torch.ops.quantized.embedding_bag_byte_rowwise_offsets(table, ids, offsets, False, 0, False, weights, None, True)


class Dlrm(torch.nn.Module):
    def __init__(self, model, lookup, bottom, top):
        super().__init__()
        self.lookup, self.bottom, self.top = lookup, bottom, top
        self.register_buffer("pairs", torch.from_numpy(model.pairs))

    def forward(self, dense, *inputs):
        x = self.bottom(dense)
        every = torch.cat([x.unsqueeze(1), self.lookup(*inputs)], dim=1)
        dots = torch.bmm(every, every.transpose(1, 2)).flatten(1).index_select(1, self.pairs)
        return self.top(torch.cat([x, dots], dim=1))


class Variant:
    def __init__(self, name, model, dlrm):
        self.name, self.model, self.dlrm, self.call = name, model, dlrm.eval(), dlrm

    def prepare(self, batch):
        return (torch.from_numpy(batch.dense), *self.dlrm.lookup.prepare(batch, self.model))


class Traced(Variant):
    def __init__(self, name, model, dlrm, example, optimize):
        super().__init__(name, model, dlrm)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            traced = torch.jit.freeze(torch.jit.trace(dlrm, self.prepare(example), check_trace=False))
            self.call = torch.jit.optimize_for_inference(traced) if optimize else traced


class Compiled(Variant):
    def __init__(self, name, model, dlrm):
        super().__init__(name, model, dlrm)
        self.call = torch.compile(dlrm)


def variants(model, number_format, threads, batches):
    """batches: all that will be run, to see what bags they have."""
    torch.set_num_threads(threads)
    lookups, example = [Apart, Bags] + ([Rows] if all(all(package.single(batch)) for batch in batches) else []), batches[0]
    if number_format == "fp32":
        table = torch.from_numpy(model.table)
        bottom, top = Dense(model.bottom, True), Dense(model.top, False)
        models = {lookup: Dlrm(model, lookup(model, table), bottom, top).requires_grad_(False) for lookup in lookups}
        torch._inductor.config.freezing = True
        torch._dynamo.config.cache_size_limit = 64
        made = [Variant("tables apart, eager", model, models[Apart]), Variant("one table, eager", model, models[Bags])]
        made += [Traced("one table, TorchScript", model, models[lookups[-1]], example, True)]
        return made + [Compiled("one table, inductor", model, models[lookups[-1]])]
    made = []
    packed = torch.ops.quantized.embedding_bag_byte_prepack(torch.from_numpy(model.table))
    for engine in ENGINES:
        torch.backends.quantized.engine = engine
        bottom, top = dense_int8(model.bottom, True), dense_int8(model.top, False)
        apart, bags = (Dlrm(model, lookup(model, packed), bottom, top) for lookup in (ByteApart, ByteBags))
        made += [Variant(f"tables apart, {engine}", model, apart), Variant(f"one table, {engine}", model, bags),
                 Traced(f"one table, {engine}, TorchScript", model, bags, example, False)]
    return made


def call(variant, inputs):
    return variant.call(*inputs)


def logits(variant, inputs):
    return variant.call(*inputs).numpy()


guard = torch.inference_mode
warnings.filterwarnings("ignore", message=".*quantized tensor creation functions.*")
