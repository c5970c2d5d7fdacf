"""An exported tagger with 8-bit integer weights.

Linear layers compute in int8, their inputs scaled as they come (dynamic quantization); embedding tables are stored in
int8; convolutions, their activations (`ACTIVATIONS`) and the sums of residual blocks compute in int8 with scales
measured on a few photos (static quantization). Layers that this harms stay in float32: `quantize_within` finds them by
measuring.
"""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from hf_tagger.deployment.export import FILES, write_description
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.runtime import MODEL, TAGGER, OnnxTagger

# Parts of the graph by their modules' names, as the exporter leaves them on the nodes.
PARTS = {"text": "encoder.text_tower.", "vision": "encoder.vision_tower.", "kernel_head": "kernel_head"}
LINEAR = ("MatMul", "Gemm", "Gather")
# Activations that become the limits of what is rounded to 8 bits, and then cost nothing.
ACTIVATIONS = ("Clip", "Relu")


class _Feeds(CalibrationDataReader):
    def __init__(self, feeds: Iterable[dict[str, np.ndarray]]):
        self.feeds = iter(feeds)

    def get_next(self):
        return next(self.feeds, None)


def parts_that_gain(source: Path, feeds: Sequence[dict[str, np.ndarray]], timed: dict[str, np.ndarray],
                    say: Callable[[str], None] = lambda text: None) -> list[str]:
    """Which of `PARTS` gain by int8: text, which becomes small, and vision where `int8_pace` is above 1."""
    if not layers_of(onnx.load(source / MODEL, load_external_data=False), ["vision"]):
        return ["text"]
    pace = int8_pace(source, feeds, timed, "vision")
    say(f"with the vision tower in int8 the graph is {pace:.2f} times as quick")
    return ["text", "vision"] if pace > 1 else ["text"]


def int8_pace(source: Path, feeds: Sequence[dict[str, np.ndarray]], timed: dict[str, np.ndarray], part: str,
              rounds: int = 7) -> float:
    """How many times as quick the float32 export `source` is with one of `PARTS` alone in int8: the best of some runs
    on the inputs `timed`, in turns. Convolutions between other activations than `ACTIVATIONS` are slower in int8.

    Args:
        feeds: as of `quantize_tagger`.
    """
    with TemporaryDirectory() as work:
        quantize_tagger(source, Path(work), feeds, [part])
        sessions = [onnxruntime.InferenceSession(Path(folder) / MODEL, providers=["CPUExecutionProvider"])
                    for folder in (source, work)]
        taken: list[list[float]] = [[], []]
        for _ in range(rounds):
            for session, seconds in zip(sessions, taken, strict=True):
                start = time.perf_counter()
                session.run(["logits"], timed)
                seconds.append(time.perf_counter() - start)
    return min(taken[0]) / min(taken[1])


def quantize_within(
    source: Path, folder: Path, feeds: Sequence[dict[str, np.ndarray]], judged: Sequence[dict[str, np.ndarray]],
    parts: Sequence[str] = ("text", "vision"), tolerance: float = 0.005, say: Callable[[str], None] = lambda text: None,
) -> Path:
    """`quantize_tagger`, with as few layers left in float32 as keep the tagger's decisions.

    Where int8 changes more decisions than it may, the layers of the part that moves the logits most go back to float32
    one by one, first the one that moves them most when it alone is int8; then those of the next part.

    Args:
        judged: inputs of the graph, of products that decisions are compared on.
        tolerance: share of the decisions (one per product and attribute) that may differ from those in float32.
        say: called with what is found on the way.
    """
    source, folder = Path(source), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    exact, logits = OnnxTagger(source), _logits(source, judged)
    model = onnx.load(source / MODEL, load_external_data=False)
    layers = {part: list(layers_of(model, [part])) for part in parts}

    def damage(part: str, keep: Sequence[str]) -> float:
        with TemporaryDirectory(dir=folder) as work:
            quantize_tagger(source, Path(work), feeds, [part], keep)
            moved = np.concatenate(logits) - np.concatenate(_logits(Path(work), judged))
            return float(np.sqrt(np.mean(moved ** 2)))

    def most_harmful_first() -> Iterator[str]:
        for part in sorted(parts, key=lambda part: -damage(part, ())) if len(parts) > 1 else parts:
            alone = {}
            for layer in layers[part]:
                alone[layer] = damage(part, [other for other in layers[part] if other != layer])
                say(f"{layer} alone in int8 moves the logits by {alone[layer]:.3f}")
            yield from sorted(alone, key=lambda layer: -alone[layer])

    keep, order = [], most_harmful_first()
    while True:
        quantize_tagger(source, folder, feeds, parts, keep)
        changed = _changed_decisions(exact, logits, _logits(folder, judged))
        say(f"int8 changes {100 * changed:.2f} % of the decisions with {len(keep)} layers in float32")
        if changed <= tolerance or (layer := next(order, None)) is None:
            return folder
        keep.append(layer)


def _logits(folder: Path, feeds: Sequence[dict[str, np.ndarray]]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(folder / MODEL, providers=["CPUExecutionProvider"])
    return [session.run(["logits"], feed)[0] for feed in feeds]


def _changed_decisions(tagger: OnnxTagger, wanted: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> float:
    changed = tagger.decide(np.concatenate(wanted))[1] != tagger.decide(np.concatenate(got))[1]
    return float(np.mean([changed[:, where].any(1) for where in attribute_slices(tagger.attributes)]))


def quantize_tagger(source: Path, folder: Path, feeds: Iterable[dict[str, np.ndarray]],
                    parts: Sequence[str] = ("text", "vision"), keep: Sequence[str] = ()) -> Path:
    """Writes the float32 export `source` with the parts named in int8 to `folder`.

    Args:
        feeds: inputs of the graph (`OnnxTagger.feed`), products to measure the convolutions' inputs on.
        parts: of `PARTS`, those that compute in int8; everything else stays float32.
        keep: of `layers_of` these parts, layers that stay float32 all the same.
    """
    source, folder = Path(source), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    description = json.loads((source / TAGGER).read_text(encoding="utf-8"))
    model = onnx.load(source / MODEL, load_external_data=False)
    layers = layers_of(model, parts)
    chosen = [node for layer, nodes in layers.items() if layer not in keep for node in nodes]
    convolutions = [node for node in chosen if node.op_type == "Conv"]
    linear = [node.name for node in chosen if node.op_type != "Conv"]
    with TemporaryDirectory(dir=folder) as work:
        current, step = source / MODEL, Path(work, "static.onnx")
        if convolutions:
            quantize_static(
                current, step, _Feeds(feeds), quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", *ACTIVATIONS, "Add"],
                nodes_to_quantize=[node.name for node in (*convolutions, *_between(model, convolutions))],
                per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                use_external_data_format=True)
            current = step
        if linear:
            step = Path(work, "dynamic.onnx")
            quantize_dynamic(current, step, op_types_to_quantize=list(LINEAR), nodes_to_quantize=linear,
                             per_channel=True, weight_type=QuantType.QInt8, use_external_data_format=True)
            current = step
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        onnx.save_model(onnx.load(current), folder / MODEL, save_as_external_data=True, location=f"{MODEL}.data",
                        size_threshold=256)
    for name in FILES:
        if not name.startswith(MODEL) and (source / name).exists():
            shutil.copyfile(source / name, folder / name)
    description.pop("files")
    write_description(folder, description | {"precision": "int8", "int8_parts": list(parts),
                                             "float32_layers": list(keep)})
    return folder


def layers_of(model: onnx.ModelProto, parts: Sequence[str]) -> dict[str, list[onnx.NodeProto]]:
    """{module of a layer, as "encoder.vision_tower.blocks.0": its nodes that can compute in int8} of these parts."""
    weights = {tensor.name for tensor in model.graph.initializer}
    layers: dict[str, list[onnx.NodeProto]] = {}
    for part in parts:
        for node in model.graph.node:
            scopes = _scopes(node)
            if (node.op_type in (("Conv",) if part == "vision" else LINEAR)
                    and any(name in weights for name in node.input) and PARTS[part] in scopes):
                layers.setdefault(_layer(scopes, PARTS[part]), []).append(node)
    return layers


def _between(model: onnx.ModelProto, convolutions: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Activations and residual sums of what these convolutions hand on. In float32 each of them would cost a way out
    of int8 and back, and out of the convolutions' order of channels and back."""
    inside = {node.output[0] for node in convolutions}
    between = []
    for node in model.graph.node:
        inputs = node.input[:1] if node.op_type in ACTIVATIONS else node.input
        if node.op_type in (*ACTIVATIONS, "Add") and all(name in inside for name in inputs):
            inside.add(node.output[0])
            between.append(node)
    return between


def _scopes(node: onnx.NodeProto) -> str:
    """The modules that a node comes from, outermost first, and its parameters' names."""
    properties = {entry.key: entry.value for entry in node.metadata_props}
    return properties.get("pkg.torch.onnx.name_scopes", "") + " " + " ".join(node.input)


def _layer(scopes: str, prefix: str) -> str:
    """The numbered module ("layer.3", "blocks.0") that the scopes go through first, or else the module itself."""
    modules = re.findall(rf"{re.escape(prefix)}[\w.]*", scopes)
    numbered = re.match(r".*?\.\d+(?=\.|$)", max(modules, key=len))
    return numbered.group() if numbered else modules[0]
