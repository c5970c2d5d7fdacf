"""An exported tagger without torch: `from hf_tagger.runtime import OnnxTagger`."""

from hf_tagger.runtime.tagger import (
    FORMAT,
    MODEL,
    TAGGER,
    TOKENIZER,
    ArtefactError,
    OnnxTagger,
    file_fingerprint,
    model_fingerprint,
)

__all__ = ["FORMAT", "MODEL", "TAGGER", "TOKENIZER", "ArtefactError", "OnnxTagger", "file_fingerprint",
           "model_fingerprint"]
