"""Makes hf_tagger's classes known to transformers' Auto classes and pipelines."""

from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from hf_tagger.configuration_tagger import TaggerConfig
from hf_tagger.modeling_tagger import TaggerModel
from hf_tagger.pipeline_tagger import ProductTaggingPipeline
from hf_tagger.processing_tagger import TaggerProcessor

AutoConfig.register(TaggerConfig.model_type, TaggerConfig)
AutoModel.register(TaggerConfig, TaggerModel)
AutoProcessor.register(TaggerConfig, TaggerProcessor)
PIPELINE_REGISTRY.register_pipeline("product-tagging", pipeline_class=ProductTaggingPipeline, pt_model=AutoModel)

# Saved folders carry this code along, so that they open with `trust_remote_code=True` where hf_tagger is not installed.
TaggerConfig.register_for_auto_class()
TaggerModel.register_for_auto_class("AutoModel")
TaggerProcessor.register_for_auto_class("AutoProcessor")
