"""A catalogue that nobody has described, described: what `hf_tagger init` writes."""
