"""Synthetic pooled vectors for rare tags, and the honest alternatives to them."""
