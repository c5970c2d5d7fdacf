"""What ships to the Hub with a model: flat, for transformers follows no sub-packages. Which of it, says `saving.py`."""
