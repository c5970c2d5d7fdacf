"""An exported tagger with 8-bit integer weights.

Two kinds of layers become integer, for different reasons: linear layers and embedding tables of the text tower (a
quarter of the size; each token is scaled as it comes) and convolutions of the vision tower with the activations and
residual sums between them (for speed; inputs are scaled by ranges measured on a few photos).

It says the same on every machine. x86 processors without VNNI multiply neighbours in pairs and cut the sum of the two
products to 16 bits (vpmaddubsw); `paired_scales` rounds weights so that no pair gets there.
"""

import json
import re
import shutil
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.quant_utils import add_infer_metadata

from hf_tagger.deployment.export import FILES, write_description
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.model.saving import let_others_read
from hf_tagger.runtime import MODEL, TAGGER, OnnxTagger

# Parts of the graph by their modules' names, as the exporter leaves them on the nodes.
PARTS = {"text": "encoder.text_tower.", "vision": "encoder.vision_tower."}
# Activations that become the limits of what is rounded to 8 bits, and then cost nothing.
ACTIVATIONS = ("Clip", "Relu")
CONVOLUTIONAL = ["Conv", *ACTIVATIONS, "Add"]
RANKED_FEEDS = 2  # of those that are measured on: enough to tell which layer moves the logits most


def parts_that_gain(source: Path) -> list[str]:
    """Which of `PARTS` gain by int8: text, which becomes small, and vision where `ACTIVATIONS` follow most of its
    convolutions. Others go through float32, which costs more than int8 saves."""
    model = onnx.load(Path(source) / MODEL, load_external_data=False)
    convolutions = [node for nodes in layers_of(model, ["vision"]).values() for node in nodes]
    activations = [node for node in between(model, convolutions) if node.op_type in ACTIVATIONS]
    return ["text", "vision"] if 2 * len(activations) > len(convolutions) else ["text"]


class Quantizer:
    """Writes a float32 export in int8, with these layers or those left in float32. The graph is read, what its layers
    read is measured, and its tables and linear layers are rounded once.

    Args:
        source: folder of the float32 export.
        feeds: inputs of the graph (`OnnxTagger.feed`), products to measure on.
        parts: of `PARTS`, those that compute in int8; everything else stays float32.
    """

    def __init__(self, source: str | Path, feeds: Iterable[dict[str, np.ndarray]],
                 parts: Sequence[str] = ("text", "vision")):
        self.source, self.parts = Path(source), list(parts)
        self.model = onnx.load(self.source / MODEL)
        self.model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
        add_infer_metadata(self.model)  # all shapes are there: onnxruntime need not write and read it to infer them
        round_tables(self.model, parts)
        self.weights = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.layers = layers_of(self.model, parts)
        convolutions, self.readers = self._nodes("Conv"), {}
        for node in self._nodes("MatMul"):
            self.readers.setdefault(node.input[0], []).append(node.input[1])
        # One range of what convolutions read and hand on; one of each column that linear layers read.
        measured = {name: 1 for node in (*convolutions, *between(self.model, convolutions))
                    for name in (*node.input, *node.output) if name not in self.weights}
        columns = {name: self.weights[weights[0]].dims[0] for name, weights in self.readers.items()}
        ranges = self._ranges(feeds, measured | columns)
        if not measured.keys() <= ranges.keys():  # none of these products has a photo
            self.layers, measured = layers_of(self.model, [part for part in parts if part == "text"]), {}
        self.ranges = TensorsData(CalibrationMethod.MinMax, {name: ranges[name] for name in measured})
        largest: dict[tuple[str, ...], np.ndarray] = {}
        for name, weights in self.readers.items():  # tied layers read several
            largest[tuple(weights)] = np.maximum(np.abs(ranges[name]).max(0), largest.get(tuple(weights), 1e-5))
        self.rounded = {weights: self._round(weights, inputs) for weights, inputs in largest.items()}

    def graph(self, keep: Sequence[str] = ()) -> onnx.ModelProto:
        """The graph with the layers `keep` (of `layers_of`) in float32."""
        model = deepcopy(self.model)
        if convolutions := self._nodes("Conv", keep):
            names = [node.name for node in (*convolutions, *between(self.model, convolutions))]
            quantizer = QDQQuantizer(model, True, False, QuantType.QInt8, QuantType.QUInt8, self.ranges, names, [],
                                     CONVOLUTIONAL, {"TensorQuantOverrides": self._rounding(convolutions)})
            quantizer.quantize_model()
            model = quantizer.model.model
        if linear := self._nodes("MatMul", keep):
            self._compute_in_integers(model.graph, {node.name for node in linear})
        return model

    def write(self, folder: str | Path, keep: Sequence[str] = ()) -> Path:
        """Writes the export to `folder`, with the layers `keep` in float32."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if not name.startswith(MODEL) and (self.source / name).exists():
                shutil.copyfile(self.source / name, folder / name)
        _save(self.graph(keep), folder / MODEL)
        description = json.loads((self.source / TAGGER).read_text(encoding="utf-8"))
        description |= {"precision": "int8", "int8_parts": self.parts, "float32_layers": list(keep)}
        del description["files"]
        write_description(folder, description)
        return folder

    def _ranges(self, feeds: Iterable[dict[str, np.ndarray]], widths: dict[str, int]) -> dict[str, tuple]:
        """{activation: its lowest and its highest values [width]}."""
        model, found = deepcopy(self.model), {}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in widths)
        with TemporaryDirectory() as work:
            session = _session(_save(model, Path(work, MODEL)))
            for feed in feeds:
                for (name, width), values in zip(widths.items(), session.run(list(widths), feed), strict=True):
                    if values.size:  # no product of these may have a photo
                        rows = values.reshape(-1, width)
                        lowest, highest = found.get(name, (np.inf, -np.inf))
                        found[name] = np.minimum(rows.min(0), lowest), np.maximum(rows.max(0), highest)
        return found

    def _round(self, weights: Sequence[str], largest: np.ndarray) -> tuple[np.ndarray, list[tuple]]:
        """What to multiply columns of inputs by, at most as large as these [D], so that none hides the others; and of
        each of the weights that read them, and undo it, int8 [D, C] and scales [C] (SmoothQuant, Xiao et al. 2023)."""
        tables = [onnx.numpy_helper.to_array(self.weights[name]) for name in weights]
        factors = np.sqrt(np.max([np.abs(table).max(1) for table in tables], 0).clip(min=1e-5) / largest)
        rounded = []
        for table in tables:
            table = table / factors[:, None]
            scales = paired_scales(table.T)
            rounded.append((np.rint(table / scales).astype(np.int8), scales))
        return factors.astype(np.float32), rounded

    def _compute_in_integers(self, graph: onnx.GraphProto, names: set[str]) -> None:
        """Replaces these linear layers. Each row of what they read has a scale of its own: otherwise the one token
        whose activations are huge would set the steps of all tokens in the batch."""
        make, nodes, tables = onnx.helper.make_node, [], {"last_axis": np.array([-1]), "least": np.float32(1e-6)}
        done = set()
        for node in graph.node:
            if node.name not in names:
                nodes.append(node)
                continue
            (read, weight), (output,) = node.input, node.output
            group = tuple(self.readers[read])
            factors, rounded = self.rounded[group]
            if read not in done:
                done.add(read)
                tables[f"{group[0]}_factors"] = factors
                nodes += [make("Mul", [read, f"{group[0]}_factors"], [f"{read}_smooth"]),
                          make("Abs", [f"{read}_smooth"], [f"{read}_absolute"]),
                          make("ReduceMax", [f"{read}_absolute", "last_axis"], [f"{read}_largest"]),
                          make("Max", [f"{read}_largest", "least"], [f"{read}_rows"]),
                          make("Div", [f"{read}_smooth", f"{read}_rows"], [f"{read}_even"]),
                          make("DynamicQuantizeLinear", [f"{read}_even"],
                               [f"{read}_quantized", f"{read}_scale", f"{read}_zero_point"])]
            name = f"{group[0]}_{weight}"
            tables[f"{name}_quantized"], tables[f"{name}_scales"] = rounded[group.index(weight)]
            inputs = [f"{read}_quantized", f"{name}_quantized", f"{read}_scale", f"{name}_scales", f"{read}_zero_point"]
            nodes += [make("MatMulIntegerToFloat", inputs, [f"{output}_even"], node.name, domain="com.microsoft"),
                      make("Mul", [f"{output}_even", f"{read}_rows"], [output])]
        _replace(graph, nodes, tables, {node.input[1] for node in graph.node if node.name in names})

    def _rounding(self, convolutions: Iterable[onnx.NodeProto]) -> dict[str, list[dict]]:
        """onnxruntime's TensorQuantOverrides: `paired_scales` of the weights of these nodes, but for depthwise ones,
        which multiply no pairs."""
        found, channel = {}, {"quant_type": QuantType.QInt8, "zero_point": np.int8(0)}
        for node in convolutions:
            weights = onnx.numpy_helper.to_array(self.weights[node.input[1]])
            if weights.shape[1] > 1:  # the channels of one place are read side by side
                scales = paired_scales(weights.transpose(0, 2, 3, 1))
                found[node.input[1]] = [channel | {"scale": scale} for scale in scales]
                found[node.input[1]][0]["axis"] = 0
        return found

    def _nodes(self, kind: str, keep: Sequence[str] = ()) -> list[onnx.NodeProto]:
        return [node for layer, nodes in self.layers.items() if layer not in keep for node in nodes
                if node.op_type == kind]


def round_tables(model: onnx.ModelProto, parts: Sequence[str]) -> None:
    """Brings embedding tables of these parts to int8, in place, each row with a scale of its own: what is read of them
    is nearly the same, and they are most of a multilingual model."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes, tables = [], {}
    gathers = {node.name for layer in layers_of(model, {"text"} & set(parts), "Gather").values() for node in layer
               if weights[node.input[0]].data_type == onnx.TensorProto.FLOAT and not any(a.i for a in node.attribute)}
    for node in model.graph.node:
        if node.name not in gathers:
            nodes.append(node)
            continue
        (table, ids), (output,) = node.input, node.output
        values = onnx.numpy_helper.to_array(weights[table])
        scales = (np.abs(values).max(-1, keepdims=True) / 127).clip(min=1e-9)
        tables[f"{table}_quantized"], tables[f"{table}_scales"] = np.rint(values / scales).astype(np.int8), scales
        make = onnx.helper.make_node
        nodes += [make("Gather", [f"{table}_quantized", ids], [f"{output}_quantized"], node.name),
                  make("Cast", [f"{output}_quantized"], [f"{output}_cast"], to=onnx.TensorProto.FLOAT),
                  make("Gather", [f"{table}_scales", ids], [f"{output}_scales"]),
                  make("Mul", [f"{output}_cast", f"{output}_scales"], [output])]
    _replace(model.graph, nodes, tables, {node.input[0] for node in model.graph.node if node.name in gathers})


def _replace(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto], tables: dict[str, np.ndarray],
             rounded: set[str]) -> None:
    """Gives a graph these nodes, and these tables in place of those that were rounded, unless a node still reads
    them."""
    nodes = [deepcopy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    unread = rounded.difference(*(node.input for node in nodes))
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name in unread:
            del graph.initializer[place]
    graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(table), name) for name, table in tables.items())


def quantize_within(
    source: str | Path, folder: str | Path, feeds: Iterable[dict[str, np.ndarray]],
    judged: Sequence[dict[str, np.ndarray]], parts: Sequence[str] = ("text", "vision"), tolerance: float = 0.005,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Writes the export `source` in int8 to `folder`, with as few layers left in float32 as keep its decisions.

    Layers go back to float32 in the order of how far each one alone in int8 moves the logits of the first batch. How
    many of them must is found by bisection.

    Args:
        judged: inputs of the graph, of products that decisions are compared on.
        tolerance: share of the decisions (one per product and attribute) that may differ from those in float32.
        say: called with what is found on the way.
    """
    feeds = list(feeds)
    exact, logits = OnnxTagger(source), _logits(Path(source, MODEL), judged)
    quantizer = Quantizer(source, feeds, parts)

    def within(keep: Sequence[str]) -> bool:
        changed = _changed_decisions(exact, logits, _logits(quantizer.write(folder, keep) / MODEL, judged))
        say(f"int8 changes {100 * changed:.2f} % of the decisions with {len(keep)} layers in float32")
        return changed <= tolerance

    if within(()):
        return Path(folder)
    few, moved = feeds[:RANKED_FEEDS], {}
    with TemporaryDirectory() as work:
        def logits_with(keep: Sequence[str]) -> np.ndarray:
            return np.concatenate(_logits(_save(quantizer.graph(keep), Path(work, MODEL)), few))

        none = logits_with(list(quantizer.layers))
        for layer in quantizer.layers:
            alone = logits_with([other for other in quantizer.layers if other != layer])
            moved[layer] = float(np.sqrt(np.mean((alone - none) ** 2)))
    ranked = sorted(moved, key=moved.get, reverse=True)
    # Where all layers but one are not enough, none is left in int8.
    count = bisect_left(range(len(ranked)), True, lo=1, key=lambda count: within(ranked[:count]))
    say("in float32: " + ", ".join(f"{layer} (moves the logits by {moved[layer]:.3f})" for layer in ranked[:count]))
    return quantizer.write(folder, ranked[:count])


def _save(model: onnx.ModelProto, path: Path) -> Path:
    """Writes a graph, with its weights in a file beside it, in the place of an earlier one."""
    weights = path.with_name(f"{path.name}.data")
    weights.unlink(missing_ok=True)
    onnx.save_model(model, path, save_as_external_data=True, location=weights.name, size_threshold=256)
    let_others_read(weights)
    return path


def _session(model: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def _logits(model: Path, feeds: Sequence[dict[str, np.ndarray]]) -> list[np.ndarray]:
    session = _session(model)
    return [session.run(["logits"], feed)[0] for feed in feeds]


def _changed_decisions(tagger: OnnxTagger, wanted: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> float:
    changed = tagger.decide(np.concatenate(wanted))[1] != tagger.decide(np.concatenate(got))[1]
    return float(np.mean([changed[:, where].any(1) for where in attribute_slices(tagger.attributes)]))


def layers_of(model: onnx.ModelProto, parts: Sequence[str], linear: str = "MatMul") -> dict[str, list[onnx.NodeProto]]:
    """{module of a layer, as "encoder.vision_tower.blocks.0": its nodes that can compute in int8} of these parts;
    `linear` are those of the text tower."""
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    layers: dict[str, list[onnx.NodeProto]] = {}
    for part in parts:
        kind, table, rank = ("Conv", 1, 4) if part == "vision" else (linear, int(linear == "MatMul"), 2)
        for node in model.graph.node:
            modules = re.findall(rf"{re.escape(PARTS[part])}[\w.]*", _scopes(node))
            if modules and node.op_type == kind and ranks.get(node.input[table]) == rank:
                layers.setdefault(_layer(modules), []).append(node)
    return layers


def between(model: onnx.ModelProto, convolutions: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Activations and residual sums of what these convolutions hand on. In float32 each of them would cost a way out
    of int8 and back, and out of the convolutions' order of channels and back."""
    inside = {node.output[0] for node in convolutions}
    found = []
    for node in model.graph.node:
        inputs = node.input[:1] if node.op_type in ACTIVATIONS else node.input
        if node.op_type in (*ACTIVATIONS, "Add") and all(name in inside for name in inputs):
            inside.add(node.output[0])
            found.append(node)
    return found


def paired_scales(weights: np.ndarray) -> np.ndarray:
    """Scales float32 [C] that round weights [C, ...] to int8, as finely as leaves any pair of neighbours, times inputs
    of at most 255, within 16 bits: rounded, two weights of one sign add up to 128 at most."""
    rows = weights.reshape(len(weights), -1)
    pairs = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).reshape(len(rows), -1, 2)
    largest = [(sign * pairs).clip(min=0).sum(2).max(1) for sign in (1, -1)]
    # Finer steps would take the bias, which is rounded to steps of inputs x weights, past 32 bits.
    return (np.maximum(*largest) / 127).clip(min=1e-6).astype(np.float32)


def _scopes(node: onnx.NodeProto) -> str:
    """The modules that a node comes from, outermost first, and its parameters' names."""
    properties = {entry.key: entry.value for entry in node.metadata_props}
    return properties.get("pkg.torch.onnx.name_scopes", "") + " " + " ".join(node.input)


def _layer(modules: list[str]) -> str:
    """The numbered module ("layer.3", "blocks.0") that these go through first, or else the outermost."""
    numbered = re.match(r".*?\.\d+(?=\.|$)", max(modules, key=len))
    return numbered.group() if numbered else modules[0]
