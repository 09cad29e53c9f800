"""The architectures that structured pruning is tried on: for each a small network and its example, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from zoo_own import CRNN, DenseNet, FusedAttention, LeNet, Recurrent, ResNeXt, ShuffleNet, UNet, Upscaler

Built = tuple[nn.Module, tuple[Tensor, ...]]


class Heard(nn.Module):
    """An encoder and decoder called with its sound, or text, and the words so far."""

    def __init__(self, model: nn.Module, sound: bool) -> None:
        super().__init__()
        self.model, self.sound = model, sound

    def forward(self, given: Tensor, words: Tensor) -> Tensor:
        name = "input_features" if self.sound else "input_ids"
        return self.model(**{name: given}, decoder_input_ids=words, use_cache=False).logits


class Logits(nn.Module):
    """Only what the classifier says."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model(*inputs).logits


def _of(name: str, config: Any, *inputs: Tensor) -> Callable[[], Built]:
    def build() -> Built:
        return Logits(getattr(transformers, name)(config)), inputs

    return build


def _image(size: int, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))


def _words(length: int = 7, vocabulary: int = 50) -> Tensor:
    return torch.randint(3, vocabulary, (2, length), generator=torch.Generator().manual_seed(2))


def _resnet(kind: str, depths: list[int]) -> Callable[[], Built]:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32] if kind == "basic" else [16, 32, 48, 64],
        depths=depths, layer_type=kind, num_labels=10,
    )  # fmt: skip
    return _of("ResNetForImageClassification", config, _image(32))


_BERT: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 40, "max_position_embeddings": 16,
}  # fmt: skip
_MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]])
_VIT: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40,
    "image_size": 16, "patch_size": 8, "num_labels": 5,
}  # fmt: skip


def _mlp() -> Built:
    layers = [
        nn.Linear(12, 32),
        nn.ReLU(),
        nn.Linear(32, 24),
        nn.BatchNorm1d(24),
        nn.GELU(),
        nn.Linear(24, 5),
    ]
    return nn.Sequential(*layers), (torch.randn(4, 12, generator=torch.Generator().manual_seed(1)),)


def _own(model: Callable[[], nn.Module], *shape: int) -> Callable[[], Built]:
    return lambda: (model(), (torch.randn(*shape, generator=torch.Generator().manual_seed(1)),))


def _t5() -> Built:
    config = transformers.T5Config(
        vocab_size=50, d_model=24, d_kv=6, d_ff=40, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu",
        decoder_start_token_id=0, use_cache=False, attn_implementation="eager",
    )  # fmt: skip
    return Heard(transformers.T5ForConditionalGeneration(config), sound=False), (_words(), _words(5))


def _whisper() -> Built:
    config = transformers.WhisperConfig(
        vocab_size=50, d_model=24, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=40, decoder_ffn_dim=40, num_mel_bins=8, max_source_positions=10,
        max_target_positions=12, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        use_cache=False,
    )  # fmt: skip
    sound = torch.randn(2, 8, 20, generator=torch.Generator().manual_seed(1))
    return Heard(transformers.WhisperForConditionalGeneration(config), sound=True), (sound, _words(5))


ZOO: dict[str, Callable[[], Built]] = {
    "MLP": _mlp,
    "LeNet": _own(LeNet, 2, 1, 28, 28),
    "ResNet-18": _resnet("basic", [2, 2, 2, 2]),
    "ResNet-50": _resnet("bottleneck", [3, 4, 6, 3]),
    "ResNeXt": _own(ResNeXt, 2, 3, 32, 32),
    "DenseNet": _own(DenseNet, 2, 3, 32, 32),
    "MobileNetV2": _of(
        "MobileNetV2ForImageClassification",
        transformers.MobileNetV2Config(image_size=64, depth_multiplier=0.35, num_labels=10), _image(64),
    ),
    "EfficientNet": _of(
        "EfficientNetForImageClassification",
        transformers.EfficientNetConfig(
            image_size=64, width_coefficient=0.25, depth_coefficient=0.5, hidden_dim=320, num_labels=10
        ),
        _image(64),
    ),
    "ShuffleNet": _own(ShuffleNet, 2, 3, 32, 32),
    "U-Net": _own(UNet, 2, 3, 32, 32),
    "Upscaler": _own(Upscaler, 2, 3, 8, 8),
    "ConvNeXt": _of(
        "ConvNextForImageClassification",
        transformers.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], num_labels=10), _image(32),
    ),
    "ViT": _of("ViTForImageClassification", transformers.ViTConfig(**_VIT), _image(16)),
    "ViT, fused qkv": _own(FusedAttention, 2, 9, 24),
    "DeiT": _of("DeiTForImageClassificationWithTeacher", transformers.DeiTConfig(**_VIT), _image(16)),
    "Swin": _of(
        "SwinForImageClassification",
        transformers.SwinConfig(
            image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, num_labels=5,
            attn_implementation="eager",  # torch's exporter refuses the other, pruned or not
        ),
        _image(32),
    ),
    "BERT": _of("BertForSequenceClassification", transformers.BertConfig(**_BERT, num_labels=5), _words(), _MASK),
    "DistilBERT": _of(
        "DistilBertForSequenceClassification",
        transformers.DistilBertConfig(
            vocab_size=50, dim=24, n_layers=2, n_heads=4, hidden_dim=40, max_position_embeddings=16, num_labels=5
        ),
        _words(), _MASK,
    ),
    "GPT-2": _of(
        "GPT2LMHeadModel",
        transformers.GPT2Config(
            vocab_size=50, n_embd=24, n_layer=2, n_head=4, n_positions=16, use_cache=False,
            bos_token_id=0, eos_token_id=0,
        ),
        _words(),
    ),
    "Llama": _of(
        "LlamaForCausalLM",
        transformers.LlamaConfig(
            vocab_size=50, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=8,
            num_key_value_heads=4, max_position_embeddings=16, use_cache=False,
        ),
        _words(),
    ),
    "T5": _t5,
    "Whisper": _whisper,
    "LSTM": _own(lambda: Recurrent(nn.LSTM), 2, 5, 6),
    "GRU": _own(lambda: Recurrent(nn.GRU), 2, 5, 6),
    "CRNN": _own(CRNN, 2, 1, 16, 40),
}  # fmt: skip


def build(name: str) -> Built:
    """The network in float64 and evaluation mode, its batch norms settled, and its example."""
    torch.manual_seed(0)
    model, inputs = ZOO[name]()
    model.double().train()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    with torch.no_grad():
        for _ in range(2):
            model(*inputs)
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms and biases that do something
                parameter.add_(0.1 * torch.randn(parameter.shape, dtype=parameter.dtype))
    return model.eval(), inputs
