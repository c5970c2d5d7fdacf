"""The page on which people look at a model's tags, and say what is right (`hf_tagger review`)."""
