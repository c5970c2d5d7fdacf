"""How a tagger learns: arguments, loop, losses, LoRA, backbones and checkpoints."""
