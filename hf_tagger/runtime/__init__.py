"""An exported tagger without torch: `from hf_tagger.runtime import OnnxTagger`."""

from hf_tagger.runtime.tagger import (
    MODEL,
    TAGGER,
    TOKENIZER,
    ArtefactError,
    OnnxTagger,
    file_fingerprint,
    model_fingerprint,
)

__all__ = ["MODEL", "TAGGER", "TOKENIZER", "ArtefactError", "OnnxTagger", "file_fingerprint",
           "model_fingerprint"]
