"""An exported tagger with 8-bit integer weights.

Two kinds of layers become integer, for different reasons: linear layers and embedding tables of the text tower (a
quarter of the size; inputs are scaled as they come) and convolutions of the vision tower with the activations and
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
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QDQQuantizer, QuantizationMode, QuantType, create_calibrator
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer

from hf_tagger.deployment.export import FILES, write_description
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.model.saving import let_others_read
from hf_tagger.runtime import MODEL, TAGGER, OnnxTagger

# Parts of the graph by their modules' names, as the exporter leaves them on the nodes.
PARTS = {"text": "encoder.text_tower.", "vision": "encoder.vision_tower."}
LINEAR = ("MatMul", "Gather")
# Activations that become the limits of what is rounded to 8 bits, and then cost nothing.
ACTIVATIONS = ("Clip", "Relu")
CONVOLUTIONAL = ["Conv", *ACTIVATIONS, "Add"]


def parts_that_gain(source: Path) -> list[str]:
    """Which of `PARTS` gain by int8: text, which becomes small, and vision where `ACTIVATIONS` follow most of its
    convolutions. Others go through float32, which costs more than int8 saves."""
    model = onnx.load(Path(source) / MODEL, load_external_data=False)
    convolutions = [node for nodes in layers_of(model, ["vision"]).values() for node in nodes]
    activations = [node for node in between(model, convolutions) if node.op_type in ACTIVATIONS]
    return ["text", "vision"] if 2 * len(activations) > len(convolutions) else ["text"]


class Quantizer:
    """Writes a float32 export in int8, with these layers or those left in float32: its graph is read, and the ranges
    of its activations are measured, once.

    Args:
        source: folder of the float32 export.
        feeds: inputs of the graph (`OnnxTagger.feed`), products to measure the convolutions' inputs on.
        parts: of `PARTS`, those that compute in int8; everything else stays float32.
    """

    def __init__(self, source: str | Path, feeds: Iterable[dict[str, np.ndarray]],
                 parts: Sequence[str] = ("text", "vision")):
        self.source, self.parts = Path(source), list(parts)
        self.model = onnx.load(self.source / MODEL)
        self.weights = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.layers = layers_of(self.model, parts)
        self.ranges = None
        if self._nodes(("Conv",)):
            with TemporaryDirectory() as work:
                calibrator = create_calibrator(self.source / MODEL, CONVOLUTIONAL, str(Path(work, MODEL)),
                                               use_external_data_format=True)
                calibrator.collect_data(SimpleNamespace(get_next=partial(next, iter(feeds), None)))
                self.ranges = calibrator.compute_data()

    def graph(self, keep: Sequence[str] = ()) -> onnx.ModelProto:
        """The graph with the layers `keep` (of `layers_of`) in float32."""
        model = deepcopy(self.model)
        if linear := self._nodes(LINEAR, keep):
            options = {"MatMulConstBOnly": True, "TensorQuantOverrides": self._rounding(linear)}
            quantizer = ONNXQuantizer(model, True, False, QuantizationMode.IntegerOps, False, QuantType.QInt8,
                                      QuantType.QUInt8, None, [node.name for node in linear], [], list(LINEAR), options)
            quantizer.quantize_model()
            model = quantizer.model.model
        if convolutions := self._nodes(("Conv",), keep):
            names = [node.name for node in (*convolutions, *between(self.model, convolutions))]
            quantizer = QDQQuantizer(model, True, False, QuantType.QInt8, QuantType.QUInt8, self.ranges, names, [],
                                     CONVOLUTIONAL, {"TensorQuantOverrides": self._rounding(convolutions)})
            quantizer.quantize_model()
            model = quantizer.model.model
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

    def _rounding(self, nodes: Iterable[onnx.NodeProto]) -> dict[str, list[dict]]:
        """onnxruntime's TensorQuantOverrides: `paired_scales` of the weights of these nodes. Depthwise convolutions
        multiply no pairs, embedding tables nothing."""
        found, channel = {}, {"quant_type": QuantType.QInt8, "zero_point": np.int8(0)}
        for node in nodes:
            weights = onnx.numpy_helper.to_array(self.weights[node.input[1]]) if node.op_type != "Gather" else None
            if weights is None or weights.shape[1] == 1:
                continue
            # A convolution reads the channels of one place side by side.
            rows, axis = (weights.transpose(0, 2, 3, 1), 0) if node.op_type == "Conv" else (weights.T, 1)
            found[node.input[1]] = [channel | {"scale": scale} for scale in paired_scales(rows)]
            found[node.input[1]][0]["axis"] = axis
        return found

    def _nodes(self, types: Sequence[str], keep: Sequence[str] = ()) -> list[onnx.NodeProto]:
        return [node for layer, nodes in self.layers.items() if layer not in keep for node in nodes
                if node.op_type in types]


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
    exact, logits = OnnxTagger(source), _logits(Path(source, MODEL), judged)
    quantizer = Quantizer(source, feeds, parts)

    def within(keep: Sequence[str]) -> bool:
        changed = _changed_decisions(exact, logits, _logits(quantizer.write(folder, keep) / MODEL, judged))
        say(f"int8 changes {100 * changed:.2f} % of the decisions with {len(keep)} layers in float32")
        return changed <= tolerance

    if within(()):
        return Path(folder)
    moved = {}
    with TemporaryDirectory() as work:
        for layer in quantizer.layers:
            alone = _save(quantizer.graph([other for other in quantizer.layers if other != layer]), Path(work, MODEL))
            moved[layer] = float(np.sqrt(np.mean((_logits(alone, judged[:1])[0] - logits[0]) ** 2)))
            say(f"{layer} alone in int8 moves the logits by {moved[layer]:.3f}")
    ranked = sorted(moved, key=moved.get, reverse=True)
    # Where all layers but one are not enough, none is left in int8.
    count = bisect_left(range(len(ranked)), True, lo=1, key=lambda count: within(ranked[:count]))
    return quantizer.write(folder, ranked[:count])


def _save(model: onnx.ModelProto, path: Path) -> Path:
    """Writes a graph, with its weights in a file beside it, in the place of an earlier one."""
    weights = path.with_name(f"{path.name}.data")
    weights.unlink(missing_ok=True)
    onnx.save_model(model, path, save_as_external_data=True, location=weights.name, size_threshold=256)
    let_others_read(weights)
    return path


def _logits(model: Path, feeds: Sequence[dict[str, np.ndarray]]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return [session.run(["logits"], feed)[0] for feed in feeds]


def _changed_decisions(tagger: OnnxTagger, wanted: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> float:
    changed = tagger.decide(np.concatenate(wanted))[1] != tagger.decide(np.concatenate(got))[1]
    return float(np.mean([changed[:, where].any(1) for where in attribute_slices(tagger.attributes)]))


def layers_of(model: onnx.ModelProto, parts: Sequence[str]) -> dict[str, list[onnx.NodeProto]]:
    """{module of a layer, as "encoder.vision_tower.blocks.0": its nodes that can compute in int8} of these parts."""
    weights = {tensor.name for tensor in model.graph.initializer}
    layers: dict[str, list[onnx.NodeProto]] = {}
    for part in parts:
        for node in model.graph.node:
            modules = re.findall(rf"{re.escape(PARTS[part])}[\w.]*", _scopes(node))
            if (modules and node.op_type in (("Conv",) if part == "vision" else LINEAR)
                    and not weights.isdisjoint(node.input)):
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
