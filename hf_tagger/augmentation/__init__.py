"""Extra pooled vectors for rare tags: generative models and simpler methods."""
