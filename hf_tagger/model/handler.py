"""What Hugging Face Inference Endpoints call: `EndpointHandler` in the `handler.py` of a model's repository.

`tagger.save_pretrained(folder, handler=True)` and `tagger.push_to_hub(repository, handler=True)` put this file there.
Requests and answers are those of `hf_tagger serve`: {"inputs": {"title": ..., "image": base64}, "parameters": {...}}.
"""

from transformers import pipeline


class EndpointHandler:
    def __init__(self, path=""):
        # The code is that of the folder this file was itself run from.
        self.tagger = pipeline("product-tagging", model=path, trust_remote_code=True)

    def __call__(self, data):
        """A decoded request -> the tags of its product, or for a list of products a list of these, or {"error": ...}.

        Raises ValueError or TypeError, which the endpoint answers with status 400, for a request that cannot be
        understood.
        """
        return self.tagger.answer(data)
