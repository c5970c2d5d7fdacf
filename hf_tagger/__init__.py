"""Fine-tune a multimodal product tagger and call it as `pipeline("product-tagging")`."""
