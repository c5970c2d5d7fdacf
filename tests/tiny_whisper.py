"""A real Whisper small enough to be trained within a test: of two tones it hears "red mug" in one, "blue dress" in the
other."""

import json

import numpy as np
import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

RATE, SECONDS = 16_000, 1
SAID = {440: " red mug", 1760: " blue dress"}
SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|translate|>", "<|nospeech|>",
           "<|notimestamps|>", *(f"<|{step * 0.02:.2f}|>" for step in range(SECONDS * 50 + 1))]


def tone(hertz, seconds=0.8, rate=RATE):
    """float32 [samples]"""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def save_tiny_whisper(folder, steps=60):
    processor = WhisperProcessor(WhisperFeatureExtractor(feature_size=20, chunk_length=SECONDS), _tokenizer())
    tokenizer = processor.tokenizer
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    torch.manual_seed(0)
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    model = WhisperForConditionalGeneration(WhisperConfig(
        vocab_size=len(tokenizer), num_mel_bins=20, d_model=32, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
        max_source_positions=SECONDS * 50, max_target_positions=32, pad_token_id=end, bos_token_id=end,
        eos_token_id=end, decoder_start_token_id=start, dropout=0.0, suppress_tokens=None, begin_suppress_tokens=None))
    model.generation_config.update(max_length=30, num_beams=1, return_timestamps=False)
    heard = processor.feature_extractor([tone(hertz) for hertz in SAID], sampling_rate=RATE, return_tensors="pt")
    prompt = [start, ids["<|notimestamps|>"]]
    rows = [[*prompt, *tokenizer(text, add_special_tokens=False).input_ids, end] for text in SAID.values()]
    labels = pad_sequence(list(map(torch.tensor, rows)), batch_first=True, padding_value=-100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        loss = model(heard.input_features, decoder_input_ids=labels[:, :-1].clamp(min=0), labels=labels[:, 1:]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    path = folder / "generation_config.json"
    told = {"no_timestamps_token_id": ids["<|notimestamps|>"], "is_multilingual": False, "_from_model_config": False}
    path.write_text(json.dumps(json.loads(path.read_text()) | told))


def _tokenizer():
    letters = sorted(ByteLevel.alphabet())
    tokenizer = WhisperTokenizer(vocab={letter: number for number, letter in enumerate([*letters, SPECIAL[0]])})
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL[1:]})
    return tokenizer
