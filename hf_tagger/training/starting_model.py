"""The model that a run starts from: a new one on pretrained towers, or a trained one; both may get a decoder."""

from accelerate.utils import set_seed

from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.training.batches import Batches
from hf_tagger.training.build import build_model, fit_standardise, load_model
from hf_tagger.training.context import RunContext
from hf_tagger.training.data import TrainingData
from hf_tagger.training.decoder import add_decoder
from hf_tagger.training.whole import whole_folder


def starting_model(run: RunContext, data: TrainingData) -> tuple[TaggerModel, TaggerProcessor]:
    """The model of `start_from`, or a new one for the tags of the catalogue."""
    with run.log.step("model") as step:
        if run.settings.start_from:
            model, processor = load_model(run.settings.start_from)
        else:
            model, processor = new_model(run, data)
        prepare_model(run, data, model, processor)
        step.result = f"{sum(weight.numel() for weight in model.parameters()):,} parameters"
    return model, processor


def new_model(run: RunContext, data: TrainingData, **backbones) -> tuple[TaggerModel, TaggerProcessor]:
    """A model for the catalogue's tags; backbones as of `build_model`."""
    attributes = [entry for entry in data.vocabulary.attributes if entry["tags"]]
    texts = (record["text"] for record in data.records("train") if record["text"])
    return build_model(run.settings.model, attributes, texts, run.settings.seed, **backbones)


def prepare_model(run: RunContext, data: TrainingData, model: TaggerModel, processor: TaggerProcessor) -> None:
    """Adds the decoder that the settings ask for, saves the model that an adapter will change, and moves the model to
    its device; all in place."""
    settings, decoder = run.settings, run.settings.model.decoder
    if decoder is not None:
        if model.decoder is None:
            set_seed(settings.seed)
            add_decoder(model, processor, data.records("train"), data.catalog.schema, data.vocabulary, decoder)
        model.config.decoder |= {"any_order": decoder.targets.order == "random"}
    if settings.save_adapter and settings.lora is not None and run.accelerator.is_main_process:
        with whole_folder(run.folder / "base") as folder:
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
    model.to(run.accelerator.device)
    model.requires_grad_(True)


def scales_are_stored(run: RunContext) -> bool:
    """Whether the features that the first phase stores are those of all products, and not yet looked at."""
    settings = run.settings
    return bool(not settings.start_from and settings.phases[0].cached_views and run.accelerator.num_processes == 1)


def fit_feature_scales(run: RunContext, batches: Batches) -> None:
    """Sets the scale of the towers' features in a new model, before any training. A resumed run has the scale in its
    checkpoint; one whose first phase stores features gets it from these."""
    if run.settings.start_from or run.resumable or scales_are_stored(run):
        return
    sample = batches.data.loader("train", batches.collator(), batches.reader, whole=True, shuffle=True)
    with run.accelerator.autocast():
        fit_standardise(batches.model, run.settings.model, sample.epoch())
