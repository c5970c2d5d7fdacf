"""Fine-tune a multimodal product tagger and call it as `pipeline("product-tagging")`.

Where transformers is in use, hf_tagger registers its classes with it, whichever of the two is imported first. It does
not import transformers (and torch) by itself: `hf_tagger.runtime` answers without either.
"""

import importlib
import sys
from importlib.abc import MetaPathFinder

__version__ = "0.2.0"

class UserError(Exception):
    """What whoever started a program can mend: recipes print it as one line and end with `exit_status`."""

    exit_status = 2


_EXPORTS = {
    "ProductTaggingPipeline": "hf_tagger.model.pipeline_tagger",
    "TaggerConfig": "hf_tagger.model.configuration_tagger",
    "TaggerModel": "hf_tagger.model.modeling_tagger",
    "TaggerProcessor": "hf_tagger.model.processing_tagger",
}


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module 'hf_tagger' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


class _RegisterOnceTransformersIsThere(MetaPathFinder):
    """Watches the imports of transformers and of hf_tagger's own modules; when the outermost of them is through and
    transformers is there, registers, once. Amid an import, modules are half made: registration has to wait."""

    running = 0

    def find_spec(self, name, path, target=None):
        if name != "transformers" and not name.startswith("hf_tagger."):
            return None
        finders = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in finders)), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            run = spec.loader.exec_module

            def exec_module(module):
                self.running += 1
                try:
                    run(module)
                finally:
                    self.running -= 1
                if not self.running and "transformers" in sys.modules:
                    register()

            spec.loader.exec_module = exec_module
        return spec


def register() -> None:
    if _watcher in sys.meta_path:
        sys.meta_path.remove(_watcher)
        _register()


def _register() -> None:
    from transformers import AutoConfig, AutoModel, AutoProcessor
    from transformers.pipelines import PIPELINE_REGISTRY

    from hf_tagger.model.configuration_tagger import TaggerConfig
    from hf_tagger.model.modeling_tagger import TaggerModel
    from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
    from hf_tagger.model.processing_tagger import TaggerProcessor

    AutoConfig.register(TaggerConfig.model_type, TaggerConfig)
    AutoModel.register(TaggerConfig, TaggerModel)
    AutoProcessor.register(TaggerConfig, TaggerProcessor)
    PIPELINE_REGISTRY.register_pipeline("product-tagging", pipeline_class=ProductTaggingPipeline, pt_model=AutoModel)
    # Saved folders carry this code along: they open with `trust_remote_code=True` where hf_tagger is not installed.
    TaggerConfig.register_for_auto_class()
    TaggerModel.register_for_auto_class("AutoModel")
    TaggerProcessor.register_for_auto_class("AutoProcessor")


_watcher = _RegisterOnceTransformersIsThere()
sys.meta_path.insert(0, _watcher)
if "transformers" in sys.modules:
    register()

__all__ = ["ProductTaggingPipeline", "TaggerConfig", "TaggerModel", "TaggerProcessor"]
