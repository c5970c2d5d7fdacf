"""The page on which people review a model's tags (`hf_tagger review`)."""
