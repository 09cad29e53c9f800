"""The unlabelled text that a student of the sentence encoder learns from."""

from __future__ import annotations

from tasks.test_minilm import installed
from tinypress.tasks import minilm, minilm_taught, texts


def test_a_mail_is_cut_into_pieces_without_a_short_rest() -> None:
    words = [str(number) for number in range(24 + 24 + 8)]
    assert minilm_taught.pieces(" ".join(words)) == [" ".join(words[:24]), " ".join(words[24:48])]
    assert minilm_taught.pieces(" ".join([*words, "more"]))[2] == " ".join([*words[48:], "more"])
    assert len(minilm_taught.pieces("word " * 10_000)) == 10


@installed
def test_what_is_tested_is_in_no_text() -> None:
    kept_out = minilm_taught.held_out()
    found = texts.glosses(kept_out)
    everything = texts.glosses(())
    assert len(set(found)) == len(found) > 90_000
    parts = {part.strip() for text in found for part in text.split(";")}
    assert not parts & kept_out
    tested = texts.definitions()[minilm.DEFINITIONS[0] : sum(minilm.DEFINITIONS)]
    whole = {part.strip() for text in everything for part in text.split(";")}
    assert {meaning for _, meaning in tested} <= whole  # so the test above could have failed


@installed
def test_texts_are_of_all_kinds_and_always_the_same() -> None:
    found = minilm_taught.unlabelled(12_000)
    assert len(found) == 12_000 == len(minilm_taught.unlabelled(12_000))
    assert found == minilm_taught.unlabelled(12_000)
    films = {sentence for sentence, _ in texts.film_sentences()}
    judged = {sentence for sentence, _ in texts.film_sentences()[minilm.FILMS[0] :]}
    assert len(films & set(found)) == minilm.FILMS[0]
    assert not judged & set(found)
    assert sum(" " not in text for text in found) >= 2_000
    tested = texts.definitions()[minilm.DEFINITIONS[0] : sum(minilm.DEFINITIONS)]
    assert not {word for word, _ in tested} & set(found)
    assert not {meaning for _, meaning in tested} & set(found)
