"""The words of texts as people write them, in scripts of all kinds."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn.captioning.vocabulary import tokenize
from fastrnn.text.vocabulary import UNKNOWN, Vocabulary
from fastrnn.tokens import words

TEXTS = {
    "Don't STOP, café!": ["don't", "stop", ",", "café", "!"],
    "rock 'n' roll's 3.14 a_b": ["rock", "'", "n", "'", "roll's", "3", ".", "14", "a_b"],
    # marks
    "एक कुत्ता दौड़ रहा है।": ["एक", "कुत्ता", "दौड़", "रहा", "है", "।"],
    "ஒரு நாய் ഒരു നായ": ["ஒரு", "நாய்", "ഒരു", "നായ"],
    "مُحَمَّد שָׁלוֹם": ["مُحَمَّد", "שָׁלוֹם"],
    "می\u200cخواهم क्\u200dष": ["می\u200cخواهم", "क्\u200dष"],
    "x\u0302y ❤️! \u0301a": ["x\u0302y", "❤️", "!", "\u0301", "a"],
    # what looks and means the same
    "cafe\u0301 A\u030angstro\u0308m": ["café", "ångström"],
    "İstanbul I\u0307zmir ISPARTA": ["istanbul", "izmir", "isparta"],
    "don’t l\u02bceau ‘it’": ["don't", "l'eau", "'", "it", "'"],
    "J\u030cin in\u00adter\u200bnet \ufeffa\u200e": ["\u01f0in", "inter", "net", "a"],
    # no spaces
    "我爱北京。iPhone手机": ["我", "爱", "北", "京", "。", "iphone", "手", "机"],
    "犬とコーヒー、ｶﾞ": ["犬", "と", "コ", "ー", "ヒ", "ー", "、", "ｶﾞ"],
    "น้ำที่ ๑๒ ບໍ່": ["น้ำ", "ที่", "๑๒", "ບໍ່"],
    "မြန်မာ ខ្មែរ": ["မြ", "န်", "မာ", "ខ្", "មែ", "រ"],
    "한국어 말 ㅋㅋ": ["한국어", "말", "ㅋㅋ"],
    unicodedata.normalize("NFD", "한국어 ё"): ["한국어", "ё"],
}


@pytest.mark.parametrize("text", TEXTS)
def test_words_of_texts(text):
    assert words(text) == TEXTS[text]
    symbols = [w for w in TEXTS[text] if any(unicodedata.category(c)[0] in "LN" for c in w)]
    assert words(text, punctuation=False) == symbols
    assert tokenize(text) == symbols  # of captions


def test_hyphens_join_the_words_of_captions_alone():
    text = "A T-shirt - black-and-white, l’eau-de-vie"
    assert tokenize(text) == ["a", "t-shirt", "black-and-white", "l'eau-de-vie"]
    assert words(text)[1:4] == ["t", "-", "shirt"]


@given(st.text())
def test_nothing_but_white_space_is_lost_and_forms_agree(text):
    got = words(text)
    for form in ("NFC", "NFD"):
        assert words(unicodedata.normalize(form, text)) == got
    assert all(got) and not any(c.isspace() for word in got for c in word)
    if text.isascii():
        assert "".join(got) == "".join(text.lower().split())


def test_vocabularies_of_earlier_versions_find_typographic_apostrophes():
    old = [UNKNOWN, "don’t", "it's", "it’s", "e\u0301t\u00e9"]
    vocabulary = Vocabulary(old, tokenizer="words")
    assert vocabulary.words == old
    sentences = vocabulary.encode(["Don’t don't IT'S it’s ÉTÉ"])
    assert sentences.words.tolist() == [1, 1, 2, 2, 4]
    assert Vocabulary(old).encode(["don't don’t"]).words.tolist() == [0, 1]
