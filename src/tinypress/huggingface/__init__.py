"""Networks that lie in a Hugging Face folder: config.json, safetensors and a tokenizer, read and shipped again."""

from tinypress.huggingface.load import Pretrained, read_pretrained
from tinypress.huggingface.shipped import read_shipped

__all__ = ["Pretrained", "read_pretrained", "read_shipped"]
