"""model/tools/export_torch.py against PyTorch itself: models in the shape of facebookresearch/dlrm and of TorchRec are built from plain
torch modules, saved as training scripts save them, exported, imported and scored; the oracle is torch's own forward pass in float64.
Then checkpoints that are damaged, hostile or not what they seem."""

import json
import os
import pickle
import resource
import struct
import subprocess
import unittest
import zipfile

import numpy as np

import rankd_fixture as fixture

try:
    import torch
    from torch import nn
except ImportError:  # the tests that need it are reported as skipped
    torch = None

EXPORT = fixture.SOURCE / "model/tools/export_torch.py"
needs_torch = unittest.skipUnless(torch, "python3-torch is not installed")


def export(checkpoint, output, *options, check=True):
    result = subprocess.run(["/usr/bin/python3", str(EXPORT), str(checkpoint), "--output", str(output), *options],
                            capture_output=True, text=True, timeout=120)
    if check and result.returncode:
        raise AssertionError(f"export_torch failed:\n{result.stdout}{result.stderr}")
    return result


# ---- models with the names and the forward pass of the two families ----

if torch:
    def mlp(sizes):
        """dlrm numbers its layers 0, 2, 4: the activations in between count."""
        layers = []
        for into, out in zip(sizes, sizes[1:]):
            layers += [nn.Linear(into, out), nn.ReLU()]
        return nn.Sequential(*layers)

    class Dlrm(nn.Module):
        def __init__(self, rows, dim, bottom, top, op="dot", itself=False, learned=False):
            super().__init__()
            self.op, self.itself = op, itself
            self.emb_l = nn.ModuleList(nn.EmbeddingBag(n, dim, mode="sum") for n in rows)
            if learned:
                self.v_W_l = nn.ParameterList(nn.Parameter(torch.rand(n) + 0.5) for n in rows)
            self.bot_l = mlp(bottom)
            width = bottom[-1] + (len(rows) * dim if op == "cat" else (len(rows) + 1) * (len(rows) + (2 if itself else 0)) // 2)
            self.top_l = mlp([width] + top)

        def forward(self, dense, bags):
            x = self.bot_l(dense)
            pooled = []
            for k, (ids, offsets, weights) in enumerate(bags):
                if hasattr(self, "v_W_l"):
                    weights = self.v_W_l[k][ids]
                pooled.append(self.emb_l[k](ids, offsets, per_sample_weights=weights))
            if self.op == "cat":
                z = torch.cat([x] + pooled, 1)
            else:
                t = torch.stack([x] + pooled, 1)
                products = t @ t.transpose(1, 2)
                n = t.shape[1]
                rows = [i for i in range(n) for j in range(i + self.itself)]
                columns = [j for i in range(n) for j in range(i + self.itself)]
                z = torch.cat([x, products[:, rows, columns]], 1)
            return self.top_l[:-1](z)  # the logit: without the last activation

    class Perceptron(nn.Module):
        def __init__(self, into, out):
            super().__init__()
            self._linear = nn.Linear(into, out)

        def forward(self, x):
            return torch.relu(self._linear(x))

    class TorchRecMlp(nn.Module):
        def __init__(self, sizes):
            super().__init__()
            self._mlp = nn.Sequential(*(Perceptron(i, o) for i, o in zip(sizes, sizes[1:])))

        def forward(self, x):
            return self._mlp(x)

    class CrossNet(nn.Module):
        def __init__(self, width, layers, rank):
            super().__init__()
            self.W_kernels = nn.ParameterList(nn.Parameter(torch.randn(width, rank) / 8) for _ in range(layers))
            self.V_kernels = nn.ParameterList(nn.Parameter(torch.randn(rank, width) / 8) for _ in range(layers))
            self.bias = nn.ParameterList(nn.Parameter(torch.randn(width) / 8) for _ in range(layers))

        def forward(self, x0):
            x = x0
            for w, v, b in zip(self.W_kernels, self.V_kernels, self.bias):
                x = x0 * ((x @ v.T) @ w.T + b) + x
            return x

    class Holder(nn.Module):
        def __init__(self, **children):
            super().__init__()
            for name, child in children.items():
                self.add_module(name, child)

    class TorchRecDlrm(nn.Module):
        """DLRM, or DLRM_DCN when cross = (layers, rank). tables: name -> rows."""

        def __init__(self, tables, dim, bottom, top, cross=None):
            super().__init__()
            bags = nn.ModuleDict({name: nn.EmbeddingBag(rows, dim, mode="sum") for name, rows in tables.items()})
            self.sparse_arch = Holder(embedding_bag_collection=Holder(embedding_bags=bags))
            self.dense_arch = Holder(model=TorchRecMlp(bottom + [dim]))
            n = len(tables) + 1
            if cross:
                self.inter_arch = Holder(crossnet=CrossNet(n * dim, *cross))
            width = n * dim if cross else dim + n * (n - 1) // 2
            self.over_arch = Holder(model=nn.Sequential(TorchRecMlp([width] + top[:-1]), nn.Linear(top[-2], top[-1])))

        def forward(self, dense, bags):
            x = self.dense_arch.model(dense)
            collection = self.sparse_arch.embedding_bag_collection.embedding_bags
            pooled = [bag(ids, offsets, per_sample_weights=weights) for bag, (ids, offsets, weights) in zip(collection.values(), bags)]
            t = torch.stack([x] + pooled, 1)
            if hasattr(self, "inter_arch"):
                z = self.inter_arch.crossnet(t.flatten(1))
            else:
                upper = torch.triu_indices(t.shape[1], t.shape[1], offset=1)
                z = torch.cat([x, (t @ t.transpose(1, 2))[:, upper[0], upper[1]]], 1)
            return self.over_arch.model(z)


def make_requests(generator, config, count=6):
    """Random requests in the JSON form that fit a config, empty bags included."""
    rows = {table["name"]: table["rows"] for table in config["tables"]}

    def row(side):
        result = {"dense": [round(float(v), 6) for v in generator.standard_normal(len(config["dense"][side]))], "ids": {}, "weights": {}}
        for feature in config["features"]:
            if feature["side"] == side:
                bag = generator.integers(0, rows[feature["table"]], generator.integers(0, 5)).tolist()
                result["ids"][feature["name"]] = bag
                if feature.get("weighted"):
                    result["weights"][feature["name"]] = [round(float(v), 6) for v in generator.random(len(bag))]
        if not result["weights"]:
            del result["weights"]
        return result

    return [{"id": f"r{i}", "context": row("context"), "candidates": [row("candidate") for _ in range(int(generator.integers(1, 9)))]}
            for i in range(count)]


def torch_logits(model, config, request, dense_order=None):
    """The request tiled the way a training batch looks, through torch in float64."""
    candidates, context = request["candidates"], request["context"]
    names = config["dense"]["context"] + config["dense"]["candidate"]
    order = [names.index(name) for name in dense_order] if dense_order else range(len(names))
    dense = torch.tensor([[(context["dense"] + c["dense"])[i] for i in order] for c in candidates], dtype=torch.float64)
    bags = []
    for feature in config["features"]:
        rows = [context if feature["side"] == "context" else c for c in candidates]
        bag = [row["ids"][feature["name"]] for row in rows]
        weights = None
        if feature.get("weighted"):
            weights = torch.tensor([w for row in rows for w in row["weights"][feature["name"]]], dtype=torch.float64)
        ids = torch.tensor([i for b in bag for i in b], dtype=torch.int64)
        bags.append((ids, torch.tensor([0] + np.cumsum([len(b) for b in bag]).tolist()[:-1]), weights))
    with torch.no_grad():
        return model.double()(dense, bags).numpy()


class TestExportedModelsScoreAsTorchDoes(unittest.TestCase):
    def setUp(self):
        if torch:
            torch.manual_seed(fixture.seed())
        self.generator = np.random.default_rng(fixture.seed())
        self.folder = fixture.scratch("export")

    def check(self, model, checkpoint, *options, tolerance=1e-5, dense_order=None):
        output = self.folder / "exported"
        printed = export(checkpoint, output, "--name", "exported", *options).stdout
        config = json.loads((output / "config.json").read_text())
        package = self.folder / "repository/exported/1"
        package.parent.mkdir(parents=True)
        fixture.rankpack("import", "--config", output / "config.json", "--weights", output / "model.safetensors", "--output", package)
        requests = make_requests(self.generator, config)
        path = self.folder / "requests.jsonl"
        path.write_text("".join(json.dumps(request) + "\n" for request in requests))
        lines = fixture.rankpack("score", package, "--requests", path).stdout.splitlines()
        self.assertEqual(len(lines), len(requests))
        for request, line in zip(requests, lines):
            wanted, got = torch_logits(model, config, request, dense_order), np.array(json.loads(line)["logits"])
            self.assertEqual(wanted.shape, got.shape)
            worst = np.max(np.abs(wanted - got) / np.maximum(1, np.abs(wanted)))
            self.assertLessEqual(worst, tolerance, f"request {request['id']}: torch says {wanted.tolist()}, rankpack {got.tolist()}")
        fixture.rankpack("score", package, "--requests", output / "example.jsonl")
        return config, printed

    def save(self, value, name="checkpoint.pt"):
        path = self.folder / name
        torch.save(value, path)
        return path

    @needs_torch
    def test_dlrm_with_dot_interaction_takes_the_lower_triangle(self):
        model = Dlrm([100, 7, 40], 16, [5, 32, 16], [24, 1])
        config, printed = self.check(model, self.save({"nepochs": 3, "state_dict": model.state_dict(), "test_acc": np.float64(0.8)}),
                                     "--context-features", "emb_0,emb_2", "--context-dense", "2")
        self.assertEqual(config["interaction"], {"op": "dot", "self": False, "pairs": "tril"})
        self.assertEqual([f["side"] for f in config["features"]], ["context", "candidate", "context"])
        self.assertIn("lower triangle", printed)
        self.assertIn("rankpack import --config", printed)

    @needs_torch
    def test_dlrm_with_itself_has_the_diagonal(self):
        model = Dlrm([10, 20], 8, [3, 8], [16, 1], itself=True)
        config, printed = self.check(model, self.save(model.state_dict()))
        self.assertEqual(config["interaction"], {"op": "dot", "self": True, "pairs": "tril"})
        self.assertIn("with the diagonal", printed)

    @needs_torch
    def test_dlrm_with_concatenation_and_several_heads(self):
        model = Dlrm([10, 20, 5], 8, [3, 12, 10], [16, 3], op="cat")
        config, _ = self.check(model, self.save(model.state_dict()), "--heads", "click,like,share")
        self.assertEqual(config["interaction"], {"op": "cat"})
        self.assertEqual(config["heads"], ["click", "like", "share"])

    @needs_torch
    def test_learned_pooling_weights_of_dlrm_are_multiplied_into_the_rows(self):
        model = Dlrm([10, 20], 8, [3, 8], [16, 1], learned=True)
        _, printed = self.check(model, self.save(model.state_dict()))
        self.assertIn("v_W_l", printed)

    @needs_torch
    def test_torchrec_dlrm_takes_the_upper_triangle_and_its_output_is_a_logit(self):
        # Module order is neither the alphabet's nor that of the numbers.
        model = TorchRecDlrm({"t_cat_10": 30, "t_cat_2": 50, "a": 8}, 12, [4, 20], [16, 8, 2])
        config, printed = self.check(model, self.save(model.state_dict()))
        self.assertEqual(config["interaction"], {"op": "dot", "self": False, "pairs": "triu"})
        self.assertEqual([t["name"] for t in config["tables"]], ["t_cat_10", "t_cat_2", "a"])
        self.assertIn("logit", printed)

    @needs_torch
    def test_torchrec_dlrm_dcn(self):
        model = TorchRecDlrm({"t_cat_0": 30, "t_cat_1": 50}, 8, [4, 20], [16, 8, 1], cross=(3, 6))
        config, _ = self.check(model, self.save(model.state_dict()))
        self.assertEqual(config["interaction"], {"op": "dcn_v2", "layers": 3, "rank": 6, "weights": "inter_arch.crossnet"})

    @needs_torch
    def test_wrappers_and_their_prefixes_are_seen_through(self):
        for prefix in ("model.", "module.", "module.model.", "_dmp_wrapped_module.module."):
            with self.subTest(prefix=prefix):
                self.folder = fixture.scratch("export")
                model = TorchRecDlrm({"x": 30, "y": 50}, 8, [4], [16, 1])
                state = {prefix + name: value for name, value in model.state_dict().items()}
                self.check(model, self.save({"model_state_dict": state, "epoch": 1}))

    @needs_torch
    def test_features_can_share_a_table_and_be_weighted(self):
        class Shared(TorchRecDlrm):
            def forward(self, dense, bags):  # two features read table x
                bags_of = self.sparse_arch.embedding_bag_collection.embedding_bags
                tables = [bags_of["x"], bags_of["x"], bags_of["y"]]
                x = self.dense_arch.model(dense)
                t = torch.stack([x] + [table(*bag[:2], per_sample_weights=bag[2]) for table, bag in zip(tables, bags)], 1)
                upper = torch.triu_indices(4, 4, offset=1)
                return self.over_arch.model(torch.cat([x, (t @ t.transpose(1, 2))[:, upper[0], upper[1]]], 1))
        model = Shared({"x": 30, "y": 50}, 8, [4], [16, 1])
        # Built for two tables; three features make the interaction wider.
        model.over_arch.model[0]._mlp[0]._linear = nn.Linear(8 + 6, 16)
        config, _ = self.check(model, self.save(model.state_dict()), "--feature", "recent=x:context:sum:weighted",
                               "--feature", "item=x:candidate:sum", "--interaction", "dot")
        self.assertEqual([f["name"] for f in config["features"]], ["recent", "item", "y"])

    @needs_torch
    def test_dense_inputs_of_the_context_need_not_come_first(self):
        model = Dlrm([10, 20], 8, [4, 8], [16, 1])
        config, _ = self.check(model, self.save(model.state_dict()), "--dense-names", "price,age,clicks,tenure",
                               "--context-dense", "age,tenure", dense_order=["price", "age", "clicks", "tenure"])
        self.assertEqual(config["dense"], {"context": ["age", "tenure"], "candidate": ["price", "clicks"]})

    @needs_torch
    def test_half_bfloat16_and_double_weights_become_float32(self):
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            with self.subTest(dtype=str(dtype)):
                self.folder = fixture.scratch("export")
                model = Dlrm([10, 20], 8, [3, 8], [16, 1]).to(dtype)
                self.check(model, self.save(model.state_dict()))

    @needs_torch
    def test_strided_views_and_shared_storages_keep_their_values(self):
        model = Dlrm([10, 20], 8, [3, 8], [16, 1])
        state = model.state_dict()
        whole = torch.randn(60, 8)
        state["emb_l.0.weight"], state["emb_l.1.weight"] = whole[5:15], whole[20:60:2]
        state["bot_l.0.weight"] = torch.randn(3, 8).t()
        model.load_state_dict(state)
        self.check(model, self.save(state))

    @needs_torch
    def test_safetensors_and_a_sharded_index_give_the_same_as_pt(self):
        model = Dlrm([10, 20], 8, [3, 8], [16, 1])
        state = {name: value.numpy() for name, value in model.state_dict().items()}
        whole = self.folder / "whole.safetensors"
        write_safetensors(whole, state)
        self.check(model, whole)
        shards = self.folder / "shards"
        shards.mkdir()
        names = sorted(state)
        parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
        for part, own in parts.items():
            write_safetensors(shards / part, {name: state[name] for name in own})
        index = {"metadata": {}, "weight_map": {name: part for part, own in parts.items() for name in own}}
        (shards / "model.safetensors.index.json").write_text(json.dumps(index))
        model = model.float()
        first = (self.folder / "exported/model.safetensors").read_bytes()
        for source in (shards, shards / "model.safetensors.index.json"):
            export(source, self.folder / "again", "--force")
            self.assertEqual(first, (self.folder / "again/model.safetensors").read_bytes())


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, value in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"".join(value.astype("<f4").tobytes() for value in tensors.values()))


def small_state(rows=(6, 9), dim=4, bottom=3, heads=1):
    """A valid dlrm state_dict in numpy, for the tests that damage it."""
    vectors = len(rows) + 1
    width = dim + vectors * (vectors - 1) // 2
    generator = np.random.default_rng(1)
    state = {f"emb_l.{k}.weight": generator.random((n, dim), "f4") for k, n in enumerate(rows)}
    state.update({"bot_l.0.weight": generator.random((dim, bottom), "f4"), "bot_l.0.bias": generator.random(dim, "f4"),
                  "top_l.0.weight": generator.random((heads, width), "f4"), "top_l.0.bias": generator.random(heads, "f4")})
    return state


class TestCheckpointsThatAreRefused(unittest.TestCase):
    def setUp(self):
        self.folder = fixture.scratch("refused")

    def refused(self, checkpoint, *expected, options=()):
        output = self.folder / "exported"
        result = export(checkpoint, output, *options, check=False)
        self.assertNotEqual(result.returncode, 0, result.stdout)
        self.assertNotIn("Traceback", result.stderr)
        for text in expected:
            self.assertIn(text, result.stderr)
        self.assertEqual([], sorted(p.name for p in output.glob("*")) if output.exists() else [], "left something behind")
        return result.stderr

    def pt(self, pickled, members=(), name="hostile.pt", compression=zipfile.ZIP_STORED):
        path = self.folder / name
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("archive/data.pkl", pickled)
            for member, content in members:
                archive.writestr("archive/" + member, content)
        return path

    def safetensors(self, state, name="model.safetensors"):
        path = self.folder / name
        write_safetensors(path, state)
        return path

    def test_a_pickle_that_calls_os_system_is_not_run(self):
        witness = self.folder / "witness"

        class Evil:
            def __reduce__(self):
                return os.system, (f"touch '{witness}'",)
        self.refused(self.pt(pickle.dumps({"state_dict": Evil()})), "system", "not opened", "torch.save(model.state_dict()")
        self.assertFalse(witness.exists(), "the pickle's code ran")

    def test_builtins_and_attribute_chains_are_not_reached(self):
        for module, name in (("builtins", "eval"), ("builtins", "getattr"), ("torch", "load"), ("torch._utils", "_import_dotted_name"),
                             ("collections", "OrderedDict.__init__.__globals__"), ("subprocess", "Popen"), ("copyreg", "_reconstructor")):
            with self.subTest(module=module, name=name):
                stream = b"\x80\x04" + b"\x8c" + bytes([len(module)]) + module.encode() + b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
                self.refused(self.pt(stream), f"{module}.{name}")

    def test_pickles_cut_at_any_byte_give_an_error_and_no_traceback(self):
        whole = pickle.dumps({"state_dict": {"emb_l.0.weight": 1, "x": [1, 2, 3]}}, protocol=2)
        for length in range(0, len(whole), 7):
            with self.subTest(length=length):
                self.refused(self.pt(whole[:length]), "damaged")

    @needs_torch
    def test_zip_files_cut_short_are_refused(self):
        path = self.folder / "whole.pt"
        torch.save({name: torch.from_numpy(value) for name, value in small_state().items()}, path)
        whole = path.read_bytes()
        for length in (0, 3, 30, len(whole) // 2, len(whole) - 1):
            with self.subTest(length=length):
                cut = self.folder / "cut.pt"
                cut.write_bytes(whole[:length])
                self.refused(cut)

    @needs_torch
    def test_storages_that_are_smaller_than_their_tensors_are_refused(self):
        path = self.folder / "whole.pt"
        torch.save({name: torch.from_numpy(value) for name, value in small_state().items()}, path)
        with zipfile.ZipFile(path) as archive:
            top = archive.namelist()[0].split("/")[0]
            members = [(name[len(top) + 1:], archive.read(name)) for name in archive.namelist() if not name.endswith("data.pkl")]
            pickled = archive.read(top + "/data.pkl")
        members = [(name, content[:-4] if name == "data/0" else content) for name, content in members]
        self.refused(self.pt(pickled, members), "storage '0'")
        self.refused(self.pt(pickled, [m for m in members if m[0] != "data/0"]), "storage '0'")

    def test_old_torch_files_and_other_files_are_named(self):
        old = self.folder / "old.pt"
        old.write_bytes(pickle.dumps(0x1950a86a20f9469cfc6c, protocol=2))
        self.refused(old, "before PyTorch 1.6")
        text = self.folder / "text.pt"
        text.write_text("hello, world")
        self.refused(text, "neither")
        self.refused(self.folder / "nowhere.pt", "No such file")
        self.refused(self.folder, "index.json")

    def test_damaged_safetensors_are_refused(self):
        def file(header, tail=b"", length=None):
            path = self.folder / "damaged.safetensors"
            raw = header if isinstance(header, bytes) else json.dumps(header).encode()
            path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + tail)
            return path
        name = "emb_l.0.weight"
        self.refused(file({}, length=1 << 63), "header")
        self.refused(file(b"{"), "JSON")
        self.refused(file(b"[" * 100000), "JSON")
        self.refused(file(b'{"a": 1, "a": 2}'), "JSON")
        self.refused(file({name: 3}), name)
        self.refused(file({name: {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}), name)
        self.refused(file({name: {"dtype": "F32", "shape": [2, -2], "data_offsets": [0, 16]}}, b"\0" * 16), name)
        self.refused(file({name: {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 16]}}, b"\0" * 16), name)
        self.refused(file({name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 16]}}, b"\0" * 16), name)
        self.refused(file({name: {"dtype": "F32", "shape": [True, 4], "data_offsets": [0, 16]}}, b"\0" * 16), name)

    def test_an_index_reads_only_files_beside_it(self):
        index = self.folder / "model.safetensors.index.json"
        for part in ("../secret.safetensors", "/etc/passwd", "", "..", 7):
            with self.subTest(part=part):
                index.write_text(json.dumps({"weight_map": {"emb_l.0.weight": part}}))
                self.refused(index, "beside the index")
        index.write_text(json.dumps({"weight_map": {"emb_l.0.weight": "absent.safetensors"}}))
        self.refused(index, "absent.safetensors")

    def test_models_that_do_not_fit_together_are_named(self):
        def without(*names, **changes):
            state = {name: value for name, value in small_state().items() if name not in names}
            state.update({name.replace("__", "."): value for name, value in changes.items()})
            return self.safetensors(state)
        self.refused(without("emb_l.0.weight", "emb_l.1.weight"), "no DLRM")
        self.refused(without("emb_l.0.weight"), "numbered [1]")
        self.refused(without("bot_l.0.bias"), "'bot_l.0.bias' is missing")
        self.refused(without("bot_l.0.weight"), "bottom MLP is missing")
        self.refused(without(top_l__4__weight=np.zeros((1, 1), "f4")), "numbered [0, 4]")
        self.refused(without(top_l__0__weight=np.zeros((1, 99), "f4")), "reads 99")
        self.refused(without(emb_l__0__weight=np.zeros((6, 5), "f4")), "do not belong together")
        self.refused(without(bot_l__0__weight=np.full((4, 3), np.nan, "f4")), "bot_l.0.weight", "[0][0]", "finite")

    def test_options_that_do_not_fit_are_named(self):
        path = self.safetensors(small_state())
        for options, text in ((["--context-features", "nobody"], "emb_0, emb_1"), (["--context-dense", "4"], "only 3"),
                              (["--context-dense", "age"], "d0, d1, d2"), (["--dense-names", "a,b"], "2 names"),
                              (["--dense-names", "a,b,a"], "twice"), (["--heads", "a,b"], "1 outputs"),
                              (["--feature", "x"], "expected NAME=TABLE"), (["--feature", "x=emb_7:context:sum"], "emb_0, emb_1"),
                              (["--feature", "x=emb_0:context:mean:weighted"], "by sum"), (["--interaction", "cat"], "cat"),
                              (["--tables", "emb_0"], "--tables"), (["--prefix", "other."], "other."),
                              (["--feature", "x=emb_0:context:sum", "--feature", "y=emb_0:context:sum"], "the top MLP reads")):
            with self.subTest(options=options):
                self.refused(path, text, options=options)

    def test_an_output_that_is_there_is_kept(self):
        path, output = self.safetensors(small_state()), self.folder / "exported"
        export(path, output)
        before = (output / "model.safetensors").read_bytes()
        result = export(path, output, check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("--force", result.stderr)
        self.assertEqual(before, (output / "model.safetensors").read_bytes())
        export(path, output, "--force")

    def test_a_large_table_needs_little_memory(self):
        # 256 MB of rows in a sparse file; the exporter may have 160 MB of memory of its own, mapped files not counted.
        rows, dim = 1 << 20, 64
        state = small_state(rows=(1, 1), dim=dim)
        sizes = {name: value.shape for name, value in state.items()}
        sizes["emb_l.0.weight"] = (rows, dim)
        header, offset = {}, 0
        for name, shape in sizes.items():
            length = 4 * int(np.prod(shape))
            header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + length]}
            offset += length
        raw = json.dumps(header).encode()
        path = self.folder / "large.safetensors"
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(raw)) + raw)
            file.truncate(8 + len(raw) + offset)
        result = subprocess.run(["/usr/bin/python3", str(EXPORT), str(path), "--output", str(self.folder / "out")],
                                capture_output=True, text=True, timeout=120, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (160 << 20, 160 << 20)))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertGreater((self.folder / "out/model.safetensors").stat().st_size, rows * dim * 4)


if __name__ == "__main__":
    fixture.main()
