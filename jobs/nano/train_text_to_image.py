"""Train the nano text-to-image model: a pixel-space transformer in diffusers' PRXPixel layout.

The transformer predicts the clean picture from a noised one (x-prediction); the loss is taken on
the flow-matching velocity, as "Back to Basics: Let Denoising Generative Models Denoise" (Li and He
2025) found best when patches are large against the hidden width.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from jobs.nano.catalogue import vocabulary
from jobs.nano.dataset import load_shard
from jobs.nano.optimizer import Optimizer, Schedule, WeightAverage
from jobs.nano.pretrain_text_encoder import load_captions, pretrain_text_encoder

logger = logging.getLogger(__name__)

SIZE = 120
PATCH = 12
MAX_TOKENS = 16
WIDTH = 256
HEADS = 8
DEPTH = 7
TEXT_WIDTH = 128
SMALLEST_TIME = 0.05
"""The pipeline clamps the time at which it divides by it; training does the same."""

TIME_SHIFT = 2.0
"""Mean of the logit of the training times: most are so noisy that only the text tells what is in
the picture, which is what was learnt last."""

_CAPTION_DROPOUT = 0.1


def create_tokenizer() -> PreTrainedTokenizerFast:
    """Build the word-level tokenizer of the nano vocabulary."""
    specials = ["<pad>", "<start>", "<end>", "<unknown>"]
    words = {word: index for index, word in enumerate([*specials, *vocabulary()])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unknown>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    build: Any = PreTrainedTokenizerFast
    wrapped: PreTrainedTokenizerFast = build(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<start>",
        eos_token="<end>",
        unk_token="<unknown>",
        model_max_length=MAX_TOKENS,
    )
    return wrapped


def create_text_encoder(vocabulary_size: int) -> CLIPTextModel:
    """Build the small CLIP-style text encoder."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary_size,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=TEXT_WIDTH,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def create_transformer() -> nn.Module:
    """Build the denoiser: 100 tokens of 12 x 12 pixels."""
    build: Any = diffusers.PRXTransformer2DModel
    transformer: nn.Module = build(
        in_channels=3,
        patch_size=PATCH,
        context_in_dim=TEXT_WIDTH,
        hidden_size=WIDTH,
        mlp_ratio=2.5,
        num_heads=HEADS,
        depth=DEPTH,
        axes_dim=[WIDTH // HEADS // 2] * 2,
        theta=100,
        bottleneck_size=128,
    )
    return transformer


class TextToPicture(nn.Module):
    """Text encoder and denoiser together, for training."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = create_tokenizer()
        self.text_encoder = create_text_encoder(len(self.tokenizer))
        self.transformer = create_transformer()
        _initialize(self.transformer)

    def tokenize(self, captions: list[str]) -> dict[str, Tensor]:
        """Return ``input_ids`` and ``attention_mask``, (B, 16) int64 each."""
        encoded = self.tokenizer(
            captions,
            padding="max_length",
            max_length=MAX_TOKENS,
            truncation=True,
            return_tensors="pt",
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def forward(self, noised: Tensor, time: Tensor, captions: list[str]) -> Tensor:
        """Predict clean pictures (B, 3, S, S) in [-1, 1] from noised ones at times (B,)."""
        tokens = {name: value.to(noised.device) for name, value in self.tokenize(captions).items()}
        text = self.text_encoder(tokens["input_ids"], attention_mask=tokens["attention_mask"])
        prediction: Tensor = self.transformer(
            noised,
            time,
            text.last_hidden_state,
            attention_mask=tokens["attention_mask"].bool(),
            return_dict=False,
        )[0]
        return prediction


def _initialize(transformer: Any) -> None:
    """Start every block as the identity (zero modulation) and the output at zero."""
    for parameter in transformer.parameters():
        if parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter)
    for block in transformer.blocks:
        nn.init.zeros_(block.modulation.lin.weight)
    nn.init.zeros_(transformer.final_layer.linear.weight)
    nn.init.zeros_(transformer.final_layer.adaLN_modulation[1].weight)


def _load_pictures(folder: Path, seen: set[Path]) -> tuple[list[NDArray[np.uint8]], list[str]]:
    pictures: list[NDArray[np.uint8]] = []
    captions: list[str] = []
    for path in sorted(set(folder.glob("shard_????.npz")) - seen):
        shard = load_shard(path)
        seen.add(path)
        pictures.extend(shard.text_pictures[..., :3])
        captions.extend(shard.captions)
    return pictures, captions


def batches(
    folder: Path, batch_size: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, list[str]]]:
    """Yield (pictures (B, 3, S, S) in [-1, 1], captions) for ever; grows with the shards."""
    seen: set[Path] = set()
    pictures, captions = _load_pictures(folder, seen)
    while True:
        order = rng.permutation(len(pictures))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            stack = torch.from_numpy(np.stack([pictures[i] for i in chosen])).permute(0, 3, 1, 2)
            small = F.interpolate(stack.float(), size=(SIZE, SIZE), mode="bilinear", antialias=True)
            kept = rng.random(batch_size) >= _CAPTION_DROPOUT
            texts = [captions[i] if keep else "" for i, keep in zip(chosen, kept, strict=True)]
            yield small / 127.5 - 1.0, texts
        more_pictures, more_captions = _load_pictures(folder, seen)
        pictures += more_pictures
        captions += more_captions


def velocity_loss(
    model: TextToPicture, pictures: Tensor, captions: list[str], generator: torch.Generator
) -> Tensor:
    """Return the mean squared error of the velocity that the predicted picture implies."""
    count = pictures.shape[0]
    device = pictures.device
    time = torch.sigmoid(torch.randn(count, generator=generator) + TIME_SHIFT).to(device)
    noise = torch.randn(pictures.shape, generator=generator).to(device)
    mix = time.view(-1, 1, 1, 1)
    noised = (1.0 - mix) * pictures + mix * noise
    predicted = model(noised, time, captions)
    weight = 1.0 / mix.clamp(min=SMALLEST_TIME)
    error: Tensor = (predicted - pictures) * weight
    return error.square().mean()


def save_pipeline(model: TextToPicture, state: dict[str, Tensor], folder: Path) -> None:
    """Write the averaged weights as a diffusers folder in float16, with its defaults."""
    trained = model.state_dict()
    model.load_state_dict(state)
    library: Any = diffusers
    pipeline = library.PRXPixelPipeline(
        transformer=model.transformer,
        scheduler=library.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0),
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        default_sample_size=SIZE,
        prompt_max_tokens=MAX_TOKENS,
        noise_scale=1.0,
    )
    model.half()
    pipeline.save_pretrained(folder, safe_serialization=True)
    model.float()
    model.load_state_dict(trained)
    defaults = {
        "num_inference_steps": 24,
        "guidance_scale": 3.0,
        "height": SIZE,
        "width": SIZE,
        "prompt_template": "{prompt}",
        "license": "Apache-2.0",
        "vocabulary": vocabulary(),
    }
    (folder / "dream_cad.json").write_text(json.dumps(defaults, indent=1) + "\n")


def load_weights(model: TextToPicture, folder: Path) -> None:
    """Load what ``save_pipeline`` wrote."""
    weights = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    model.transformer.load_state_dict({key: value.float() for key, value in weights.items()})
    weights = load_file(folder / "text_encoder" / "model.safetensors")
    model.text_encoder.load_state_dict({key: value.float() for key, value in weights.items()})


def hidden_matrices(model: TextToPicture) -> list[nn.Parameter]:
    """Return the weights of the transformer layers, which Muon updates."""
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2
        and (".blocks." in name or ".layers." in name)
        and "modulation" not in name
    ]


def train_text_to_image(
    data: Path,
    folder: Path,
    *,
    schedule: Schedule,
    batch_size: int = 32,
    rate: float = 2e-3,
    seed: int = 0,
    device: str = "cpu",
    start_from: Path | None = None,
    encoder_steps: int = 800,
) -> None:
    """Train on the shards in ``data`` and write a diffusers folder to ``folder``.

    Args:
        data: folder of the shards.
        folder: gets the diffusers folder, every 500 steps and at the end.
        schedule: steps, time and learning-rate factor.
        batch_size: pictures a step.
        rate: highest learning rate.
        seed: of weights, noise and order.
        device: torch device.
        start_from: a folder written before, whose weights are trained on.
        encoder_steps: steps that the text encoder learns alone first.
    """
    torch.manual_seed(seed)
    model = TextToPicture()
    if start_from is not None:
        load_weights(model, start_from)
    if encoder_steps:
        captions_seen = load_captions(data)
        pretrain_text_encoder(
            model.text_encoder, model.tokenize, captions_seen, steps=encoder_steps, seed=seed
        )
    model.to(device).train()
    optimizer = Optimizer(model, hidden_matrices(model), rate)
    average = WeightAverage(model)
    generator = torch.Generator().manual_seed(seed)
    source = batches(data, batch_size, np.random.default_rng(seed))
    running = 0.0
    step = 0
    while schedule.progress(step) < 1.0:
        pictures, captions = next(source)
        loss = velocity_loss(model, pictures.to(device), captions, generator)
        optimizer.step(loss, schedule.factor(step))
        average.update(model)
        step += 1
        running += loss.item()
        if step % 50 == 0:
            logger.info(
                "step %d (%.1f %%) loss %.4f", step, 100 * schedule.progress(step), running / 50
            )
            running = 0.0
        if step % 500 == 0:
            save_pipeline(model, average.state, folder)
    save_pipeline(model, average.state, folder)
