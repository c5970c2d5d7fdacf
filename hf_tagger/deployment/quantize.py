"""An exported tagger with 8-bit integer weights.

Linear layers compute in int8, their inputs scaled as they come (dynamic quantization); embedding tables are stored in
int8; convolutions compute in int8 with scales measured on a few photos (static quantization). What a part loses can be
measured and the part left in float32: see `PARTS`.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from hf_tagger.deployment.export import write_description
from hf_tagger.runtime import MODEL, TAGGER, TOKENIZER, WORDS

# Parts of the graph by their modules' names, as the exporter leaves them on the nodes.
PARTS = {"text": "encoder.text_tower.", "vision": "encoder.vision_tower.", "exemplars": "exemplars"}


class _Feeds(CalibrationDataReader):
    def __init__(self, feeds: Iterable[dict[str, np.ndarray]]):
        self.feeds = iter(feeds)

    def get_next(self):
        return next(self.feeds, None)


def quantize_tagger(source: Path, folder: Path, feeds: Iterable[dict[str, np.ndarray]],
                    parts: Sequence[str] = ("text", "vision")) -> Path:
    """Writes the float32 export `source` with the parts named in int8 to `folder`.

    Args:
        feeds: inputs of the graph (`OnnxTagger.feed`), products to measure the convolutions' inputs on.
        parts: of `PARTS`, those that compute in int8; everything else stays float32.
    """
    source, folder = Path(source), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    description = json.loads((source / TAGGER).read_text(encoding="utf-8"))
    model = onnx.load(source / MODEL)
    linear = nodes_of(model, [part for part in parts if part != "vision"], ("MatMul", "Gemm", "Gather"))
    convolutions = nodes_of(model, ["vision"] if "vision" in parts else [], ("Conv",))
    with TemporaryDirectory(dir=folder) as work:
        current, step = source / MODEL, Path(work, "static.onnx")
        if convolutions:
            quantize_static(
                current, step, _Feeds(feeds), quant_format=QuantFormat.QDQ, op_types_to_quantize=["Conv", "Clip"],
                nodes_to_quantize=convolutions, per_channel=True, activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8, use_external_data_format=True)
            current = step
        if linear:
            step = Path(work, "dynamic.onnx")
            quantize_dynamic(current, step, op_types_to_quantize=["MatMul", "Gemm", "Gather"],
                             nodes_to_quantize=linear, per_channel=True, weight_type=QuantType.QInt8,
                             use_external_data_format=True)
            current = step
        for name in (MODEL, f"{MODEL}.data"):
            (folder / name).unlink(missing_ok=True)
        onnx.save_model(onnx.load(current), folder / MODEL, save_as_external_data=True, location=f"{MODEL}.data")
    for name in (WORDS, TOKENIZER):
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)
    description.pop("files")
    write_description(folder, description | {"precision": "int8", "int8_parts": list(parts)})
    return folder


def nodes_of(model: onnx.ModelProto, parts: Sequence[str], operators: Sequence[str]) -> list[str]:
    """Names of the nodes with these operators and constant weights that belong to these parts."""
    weights = {tensor.name for tensor in model.graph.initializer}
    wanted = [PARTS[part] for part in parts]
    return [node.name for node in model.graph.node
            if node.op_type in operators and any(name in weights for name in node.input)
            and any(prefix in _module(node) for prefix in wanted)]


def _module(node: onnx.NodeProto) -> str:
    """The module that a node comes from, with its parameters' names."""
    properties = {entry.key: entry.value for entry in node.metadata_props}
    return properties.get("pkg.torch.onnx.name_scopes", "") + " " + " ".join(node.input)
