"""Recognises a DLRM in a state_dict: which tensors are tables, bottom and top MLP, interaction.

Two families, which differ where it hurts if one forgets it:

    facebookresearch/dlrm   emb_l.K.weight, bot_l.N.*, top_l.N.*          pairs j < i (lower triangle); --arch-interaction-itself adds i = j
    TorchRec                sparse_arch.*, dense_arch.*, over_arch.*      pairs j > i (upper triangle); the model's output is a logit

In both the sigmoid is no tensor; rankd applies it to the last layer's logit. Nothing here reads a weight: names and shapes decide.
"""

import re

from torch_checkpoint import FLOATS, CheckpointError, Opaque, Tensor

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net")  # where training scripts put the state_dict

DLRM_ANCHOR = re.compile(r"^(|.*\.)emb_l\.\d+\.weight$")
TORCHREC_ANCHOR = re.compile(r"^(|.*\.)sparse_arch\.embedding_bag_collection\.embedding_bags\.[^.]+\.weight$")


class Layout:
    """What was found: names are without prefix; `tensors` maps them to Tensor."""

    def __init__(self, family, tensors):
        self.family, self.tensors = family, tensors
        self.tables = []      # (table name, tensor name) in interaction order
        self.row_weights = {} # table name -> tensor of one learned factor per row
        self.bottom, self.top = [], []  # layer names in order
        self.interaction = None
        self.notes = []

    def shape(self, name):
        return self.tensors[name].shape

    def dims_of(self, table_names):
        """The width of each of these tables' rows."""
        tensors = dict(self.tables)
        return [self.shape(tensors[name])[1] for name in table_names]


def natural(name):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def find_state_dict(checkpoint):
    """The dict of named tensors in whatever a training script saved."""
    seen = checkpoint
    for _ in range(4):
        if any(isinstance(key, str) and (DLRM_ANCHOR.match(key) or TORCHREC_ANCHOR.match(key)) for key in seen):
            return {key: value for key, value in seen.items() if isinstance(key, str)}
        inner = [seen[key] for key in WRAPPERS if isinstance(seen.get(key), dict)]
        if not inner:
            break
        seen = inner[0]
    keys = ", ".join(str(key)[:60] for key in list(seen)[:8])
    raise CheckpointError("no DLRM in this checkpoint: there is neither emb_l.0.weight (facebookresearch/dlrm) nor "
                          f"sparse_arch.embedding_bag_collection.embedding_bags.*.weight (TorchRec); its names begin with: {keys or 'none'}")


def split_prefix(state, wanted):
    """The family, the prefix that wrappers such as DistributedDataParallel put in front, and the tensors without it."""
    found = {}
    for key in state:
        for family, anchor in (("dlrm", DLRM_ANCHOR), ("torchrec", TORCHREC_ANCHOR)):
            match = anchor.match(key)
            if match:
                found[match.group(1)] = family
    if wanted is not None:
        found = {prefix: family for prefix, family in found.items() if prefix == wanted}
        if not found:
            raise CheckpointError(f"no model under the prefix '{wanted}'")
    if len(found) > 1:
        raise CheckpointError("several models in this checkpoint; choose one with --prefix: " + ", ".join(f"'{p}'" for p in sorted(found)))
    prefix, family = next(iter(found.items()))
    tensors = {}
    for key, value in state.items():
        if key.startswith(prefix):
            name = key[len(prefix):]
            tensors[name] = value
            if isinstance(value, Tensor):
                value.name = key
    return family, prefix, tensors


def recognise(checkpoint, names_in_module_order, prefix=None, table_order=None):
    """Everything but the interaction, which depends on what reads the tables: see find_interaction."""
    family, prefix, tensors = split_prefix(find_state_dict(checkpoint), prefix)
    layout = Layout(family, tensors)
    if prefix:
        layout.notes.append(f"names are taken without their prefix '{prefix}'")
    (find_dlrm if family == "dlrm" else find_torchrec)(layout, names_in_module_order)
    if table_order:
        order_tables(layout, table_order, names_in_module_order)
    for _, tensor in layout.tables:
        need_matrix(layout, tensor)
    return layout


def need_matrix(layout, name):
    tensor = layout.tensors.get(name)
    if isinstance(tensor, Opaque):
        raise CheckpointError(f"'{name}' is a {tensor.what}; only plain float tensors can be exported: dequantise or gather it first")
    if not isinstance(tensor, Tensor):
        raise CheckpointError(f"'{name}' is missing from the checkpoint")
    if tensor.dtype not in FLOATS or len(tensor.shape) != 2 or not tensor.elements:
        raise CheckpointError(f"'{name}' should be a matrix of floats; it is {tensor.dtype} of shape {list(tensor.shape)}")
    return tensor


def need_vector(layout, name, length):
    tensor = layout.tensors.get(name)
    if not isinstance(tensor, Tensor):
        raise CheckpointError(f"'{name}' is missing from the checkpoint")
    if tensor.dtype not in FLOATS or tensor.shape != (length,):
        raise CheckpointError(f"'{name}' should be {length} floats; it is {tensor.dtype} of shape {list(tensor.shape)}")


def find_mlp(layout, pattern, step, what):
    """Layer names whose number comes from `pattern`: 0, step, 2 * step, ..."""
    numbers = sorted(int(match.group(1)) for match in map(pattern.match, layout.tensors) if match)
    if numbers != list(range(0, step * len(numbers), step)):
        raise CheckpointError(f"the {what} MLP has layers numbered {numbers}; expected {list(range(0, step * max(len(numbers), 1), step))}")
    return numbers


def check_chain(layout, layers, what):
    width = None
    for layer in layers:
        out, into = need_matrix(layout, layer + ".weight").shape
        need_vector(layout, layer + ".bias", out)
        if width not in (None, into):
            raise CheckpointError(f"the {what} MLP does not chain: '{layer}' reads {into} values, the layer before gives {width}")
        width = out


def find_dlrm(layout, _ordered):
    tables = sorted(int(m.group(1)) for m in (re.match(r"^emb_l\.(\d+)\.weight$", name) for name in layout.tensors) if m)
    if any(re.match(r"^emb_l\.\d+\.(weight_[qr]|embs\.|proj\.)", name) for name in layout.tensors):
        raise CheckpointError("some tables are quotient-remainder or mixed-dimension embeddings; expand them to plain tables first")
    if tables != list(range(len(tables))):
        raise CheckpointError(f"tables are numbered {tables}; expected 0 to {len(tables) - 1} without gaps")
    layout.tables = [(f"emb_{k}", f"emb_l.{k}.weight") for k in tables]
    for k in tables:
        if f"v_W_l.{k}" in layout.tensors:
            need_vector(layout, f"v_W_l.{k}", need_matrix(layout, f"emb_l.{k}.weight").shape[0])
            layout.row_weights[f"emb_{k}"] = f"v_W_l.{k}"
    if layout.row_weights:
        layout.notes.append("learned pooling weights (v_W_l) are multiplied into the rows")
    layout.bottom = [f"bot_l.{n}" for n in find_mlp(layout, re.compile(r"^bot_l\.(\d+)\.weight$"), 2, "bottom")]
    layout.top = [f"top_l.{n}" for n in find_mlp(layout, re.compile(r"^top_l\.(\d+)\.weight$"), 2, "top")]
    check_chain(layout, layout.bottom, "bottom")
    check_chain(layout, layout.top, "top")


def find_torchrec(layout, ordered):
    bags = "sparse_arch.embedding_bag_collection.embedding_bags."
    names = [name[len(bags):-len(".weight")] for name in layout.tensors if TORCHREC_ANCHOR.match(name)]
    if not ordered:
        names.sort(key=natural)
    layout.tables = [(name, f"{bags}{name}.weight") for name in names]
    if any(name.startswith("inter_arch.interaction_branch") for name in layout.tensors):
        raise CheckpointError("this is TorchRec's DLRM_Projection; rankd serves DLRM and DLRM_DCN")
    dense = find_mlp(layout, re.compile(r"^dense_arch\.model\._mlp\.(\d+)\._linear\.weight$"), 1, "bottom")
    over = find_mlp(layout, re.compile(r"^over_arch\.model\.0\._mlp\.(\d+)\._linear\.weight$"), 1, "top")
    layout.bottom = [f"dense_arch.model._mlp.{n}._linear" for n in dense]
    layout.top = [f"over_arch.model.0._mlp.{n}._linear" for n in over] + ["over_arch.model.1"]
    check_chain(layout, layout.bottom, "bottom")
    check_chain(layout, layout.top, "top")


def order_tables(layout, wanted, ordered):
    known = dict(layout.tables)
    if sorted(wanted) != sorted(known):
        raise CheckpointError(f"--tables must name each table once; the checkpoint has {', '.join(known)}")
    layout.tables = [(name, known[name]) for name in wanted]


def find_interaction(layout, table_of_feature, wanted=None):
    """The interaction whose width is what the top MLP reads. table_of_feature: in interaction order."""
    if not layout.top or not layout.bottom:
        raise CheckpointError(f"the {'top' if layout.bottom else 'bottom'} MLP is missing from the checkpoint")
    bottom_out = layout.shape(layout.bottom[-1] + ".weight")[0]
    top_in = layout.shape(layout.top[0] + ".weight")[1]
    dims = layout.dims_of(table_of_feature)
    if any(name.startswith("inter_arch.crossnet.") for name in layout.tensors):
        layout.interaction = find_cross(layout, bottom_out + sum(dims), top_in)
        return
    choices = interactions(layout.family, bottom_out, dims)
    fitting = [name for name, (width, _) in choices.items() if width == top_in and wanted in (None, name)]
    if len(fitting) != 1:
        widths = ", ".join(f"{name} gives {width}" for name, (width, _) in choices.items()) or "dot needs equal dims"
        raise CheckpointError(
            f"the top MLP reads {top_in} values; with {len(dims)} features of dims {sorted(set(dims))} and a bottom output of "
            f"{bottom_out}, {widths}: " + ("choose one with --interaction" if fitting else
                                           f"{wanted} does not fit" if wanted else
                                           "these tensors do not belong together, or some table has more features: see --feature"))
    layout.interaction = choices[fitting[0]][1]
    if layout.interaction["op"] == "dot":
        layout.notes.append(f"interaction: dot, {'lower' if layout.family == 'dlrm' else 'upper'} triangle, "
                            f"{'with' if layout.interaction['self'] else 'without'} the diagonal (from the top MLP's {top_in} inputs)")
    else:
        layout.notes.append(f"interaction: concatenation (from the top MLP's {top_in} inputs)")


def interactions(family, bottom_out, dims):
    """What the family has: name -> (width, config)."""
    vectors, choices = len(dims) + 1, {}
    pairs = "tril" if family == "dlrm" else "triu"
    if all(dim == bottom_out for dim in dims):
        choices["dot"] = (bottom_out + vectors * (vectors - 1) // 2, {"op": "dot", "self": False, "pairs": pairs})
    if family == "dlrm":
        if "dot" in choices:
            choices["dot_self"] = (bottom_out + vectors * (vectors + 1) // 2, {"op": "dot", "self": True, "pairs": pairs})
        choices["cat"] = (bottom_out + sum(dims), {"op": "cat"})
    return choices


def find_cross(layout, width, top_in):
    base = "inter_arch.crossnet"
    if not any(name.startswith(base + ".V_kernels.") for name in layout.tensors):
        raise CheckpointError(f"'{base}' has no V_kernels: only the low-rank cross network is served")
    numbers = find_mlp(layout, re.compile(r"^inter_arch\.crossnet\.V_kernels\.(\d+)$"), 1, "cross")
    rank = need_matrix(layout, f"{base}.V_kernels.0").shape[0]
    for k in numbers:
        for name, shape in ((f"{base}.V_kernels.{k}", (rank, width)), (f"{base}.W_kernels.{k}", (width, rank))):
            if need_matrix(layout, name).shape != shape:
                raise CheckpointError(f"'{name}' has shape {list(layout.shape(name))}; expected {list(shape)} from the "
                                      "bottom MLP and the tables")
        need_vector(layout, f"{base}.bias.{k}", width)
    if top_in != width:
        raise CheckpointError(f"the top MLP reads {top_in} values, the cross network gives {width}")
    layout.notes.append(f"interaction: low-rank cross network of {len(numbers)} layers, rank {rank}")
    return {"op": "dcn_v2", "layers": len(numbers), "rank": rank, "weights": base}
