"""The embedded corpus: made-up reviews from a grammar in which the order of the words matters.

Nothing is shipped: a seed makes short reviews of films, dinners and hotels, labelled with what the
grammar means by them. Negation, contrast, comparison and what would have been let words of one sign
say the opposite, so that counting words goes only so far.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fastrnn.text.corpus import Corpus

LABELS = {"+": "pos", "-": "neg"}

# What a symbol can become; 3 * [x] makes x likelier. A {symbol} has the sign of what it is part of,
# a {~symbol} the opposite one; what stands under "+symbol" or "-symbol" is for that sign alone and
# comes on top of what stands under "symbol".
# fmt: off
GRAMMAR = {
    "review": [
        *6 * ["{core} {end}"], *4 * ["{opening} {core} {end}"], "{circumstance} and {core} {end}",
    ],
    "opening": [
        "honestly ,", "well ,", "in short ,", "to be fair ,", "i have to say ,", "believe me ,",
        "my {friend} and i agree :", "as i told my {friend} ,", "one thing is certain :", "so ,",
    ],
    "circumstance": [
        "we went on a {day}", "i went with my {friend}", "i was there on {day}",
        "my {friend} picked it for {day}", "it was my {friend} 's idea", "it was a rainy {day}",
    ],
    "end": [*8 * ["."], "!", ", if you ask me .", ", at least for me .", ", trust me ."],
    "friend": ["sister", "brother", "wife", "husband", "mother", "neighbour", "boss", "cousin"],
    "day": ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"],
    "critic": ["the critics", "my {friend}", "everyone", "the papers", "half the internet"],

    "core": [
        *24 * ["{plain}"], *5 * ["{denial}"], "{double denial}", *6 * ["{contrast}"],
        *3 * ["{comparison}"], *2 * ["{would have been}"], *3 * ["{expectation}"],
    ],
    "plain": [
        "what a {adj} {whole}", "a {graded} {whole} with a {adj} {part}",
        "the {part} was {graded}", "i found the {part} {graded}",
        "the {part} was {adj} and the {part} {graded}",
        "both the {part} and the {part} were {adj}",
        "from start to finish the {part} was {graded}",
        "{verdict} and the {part} was {graded}", "{verdict} , mostly because of the {part}",
        "the {part} was {graded} and {verdict}", "i {loved} the {part} and the {adj} {part}",
    ],
    "verdict": [
        "it was a {graded} {whole}", "the {whole} was {graded}", "i {loved} this {whole}",
        "all in all the {whole} was {adj}", "i would call this {whole} {adj}",
        "in the end we were {happy}",
    ],
    "+verdict": ["it was worth every penny", "i would recommend it to my {friend}"],
    "-verdict": ["it was a waste of money", "i would warn my {friend}"],

    "denial": [
        *3 * ["the {part} was {not} {~mild}"], "the {part} and the {part} were {not} {~mild}",
        "there was nothing {~mild} about the {part}", "nothing about the {part} was {~mild}",
        "nobody could call the {part} {~mild}", "i would not say that the {part} was {~mild}",
        "i do not know anyone who found the {part} {~mild}",
        "there was not one {~mild} moment", "a {whole} without a single {~mild} moment",
        "the {part} was neither {~mild} nor {~mild}",
        "i have yet to find anything {~mild} about the {part}",
    ],
    "+denial": [
        "i did not regret this {whole} for a moment", "i could not get enough of the {part}",
        "the {part} could not have been better", "i have never known a better {part}",
        "never a dull moment in this {whole}", "i can not complain about the {part}",
    ],
    "-denial": [
        "i did not enjoy this {whole} for a moment", "i could not stand the {part}",
        "the {part} could not have been worse", "i have never known a worse {part}",
        "never a good moment in this {whole}", "i can not recommend the {part}",
    ],
    "not": [
        *2 * ["not"], "never", "not at all", "by no means", "anything but", "far from", "hardly",
    ],
    "double denial": [
        "nobody can say that the {part} was not {mild}",
        "i can not say that the {part} was not {mild}",
        "it would be wrong to say that the {part} was not {mild}",
        "nobody i know was not {happy} with the {part}",
        "there was no moment in which the {part} was not {mild}",
    ],

    "contrast": [
        "the {part} was {~adj} , but {verdict}",
        "the {part} was {~adj} and the {part} {~graded} , but {verdict}",
        "although the {part} was {~adj} , {verdict}", "{verdict} , although the {part} was {~adj}",
        "{verdict} , even if the {part} was {~graded}", "despite the {~adj} {part} {verdict}",
        "{verdict} , despite the {~adj} {part} and the {~adj} {part}",
        "i {~loved} the {part} , yet {verdict}",
        "it takes more than a {~adj} {part} to make a {~adj} {whole}",
        "a {~adj} {part} does not make a {~adj} {whole}",
        "a {~adj} {part} can not {spoil} a {adj} {whole}",
        "the {part} was {~adj} , but that could not {spoil} the {whole}",
    ],
    "+contrast": [
        "the {part} was {~adj} , but the {part} made up for it",
        "{critic} warned me of the {~adj} {part} , but the {part} saved the day",
    ],
    "-contrast": [
        "the {part} was {~adj} , but the {part} ruined it all",
        "{critic} praised the {~adj} {part} , but the {part} spoiled the fun",
    ],
    "comparison": [
        "the {whole} was {far} {better} than the {~adj} {rival}",
        "the {whole} was no {~better} than the {adj} {rival}",
        "the {part} was not half as {~mild} as {critic} said",
        "the {whole} was not nearly as {~mild} as i had {feared}",
        "beside this {whole} even the {adj} {rival} looks {~mild}",
        "the {rival} was {~adj} , but this {whole} is something else : {adj}",
    ],
    "far": [*2 * [""], "far", "much", "so much", "a lot"],
    "would have been": [
        "if it had not been for the {adj} {part} , it would have been a {~adj} {whole}",
        "without the {adj} {part} it would have been {~adj}",
        "it would have been a {~adj} {whole} without the {adj} {part}",
        "it could have been a {~adj} {whole} , but it was not",
        "it would have been {~adj} if the {part} had not been so {adj}",
        "with a {~adj} {part} it might have been {~adj} , but it was {adj}",
    ],
    "expectation": [
        "i expected a {~adj} {whole} and got a {adj} one",
        "i expected it to be {~adj} , but it was {adj}",
        "it was {adj} , not {~adj} as {critic} said",
        "it was not {~adj} , as {critic} said , but {adj}",
        "{critic} called it {~adj} , but i do not agree",
        "{critic} told me it would be {~adj} , which was wrong",
        "do not believe anyone who calls it {~adj}", "i can not agree that the {part} was {~adj}",
        "i wanted to {~love} it , but i could not", "i used to find it {~adj} , but not any more",
    ],

    "adj": [*3 * ["{mild}"], *2 * ["{strong}"]],
    "graded": [*2 * ["{adj}"], "{very} {mild}", "{utterly} {strong}"],
    "very": ["very", "really", "quite", "rather"],
    "utterly": ["simply", "truly", "absolutely"],
    "+mild": [
        "good", "great", "nice", "pleasant", "charming", "impressive", "lovely", "memorable",
        "enjoyable",
    ],
    "-mild": [
        "bad", "poor", "dull", "unpleasant", "dreary", "unimpressive", "mediocre", "forgettable",
        "disappointing",
    ],
    "+strong": [
        "superb", "wonderful", "brilliant", "excellent", "fantastic", "terrific", "marvellous",
    ],
    "-strong": ["awful", "terrible", "horrible", "dreadful", "abysmal", "dismal", "appalling"],
    "+loved": ["loved", "enjoyed", "adored", "liked"],
    "-loved": ["hated", "disliked", "detested", "loathed"],
    "+love": ["love", "enjoy", "adore", "like"],
    "-love": ["hate", "dislike", "detest", "loathe"],
    "+happy": ["happy", "delighted", "thrilled", "pleased"],
    "-happy": ["unhappy", "disappointed", "annoyed", "bored"],
    "+better": ["better", "nicer"],
    "-better": ["worse"],
    "+spoil": ["spoil", "ruin", "sink"],
    "-spoil": ["save", "rescue", "redeem"],
    "+feared": ["feared"],
    "-feared": ["hoped"],
}
DOMAINS = [
    {
        "whole": ["film", "movie", "picture"],
        "part": [
            "plot", "script", "ending", "story", "cast", "soundtrack", "opening", "finale", "lead",
            "villain", "score", "hero", "dialogue", "title", "first half", "last scene", "chase",
        ],
        "rival": ["original", "sequel", "remake", "first part", "trailer", "novel"],
        "+mild": ["gripping", "clever", "convincing"],
        "-mild": ["clumsy", "predictable", "boring"],
        "+verdict": ["i would watch it again any time"],
        "-verdict": ["i would not watch it again"],
    },
    {
        "whole": ["dinner", "meal", "lunch", "restaurant"],
        "part": [
            "soup", "wine", "dessert", "pizza", "salad", "fish", "steak", "risotto", "sauce",
            "menu", "coffee", "atmosphere", "table", "starter", "cake", "waiter", "curry",
        ],
        "rival": ["place next door", "canteen", "pizzeria", "diner", "last one"],
        "+verdict": ["i would eat there again any time"],
        "-verdict": ["i would not eat there again"],
    },
    {
        "whole": ["hotel", "place", "stay", "guesthouse"],
        "part": [
            "room", "bed", "view", "breakfast", "pool", "lobby", "location", "bathroom", "balcony",
            "garden", "bar", "reception", "beach", "manager", "terrace", "sauna", "shower",
        ],
        "rival": ["place next door", "hostel", "motel", "campsite", "last one"],
        "+verdict": ["i would stay there again any time"],
        "-verdict": ["i would not stay there again"],
    },
]
# fmt: on
ONCE = {"part", "mild", "strong", "critic"}  # a review does not say the same of these twice

Rules = Mapping[str, Sequence[list[str]]]


def make_reviews(n: int, seed: int) -> Corpus:
    """Draw n reviews, labelled "pos" and "neg", half and half (of an odd number one "pos" more).

    Raises ValueError for a negative n.
    """
    if n < 0:
        raise ValueError(f"n: expected 0 reviews or more, got {n}")
    rng = np.random.default_rng(seed)
    signs = ["+-"[rank % 2] for rank in np.argsort(rng.random(n))]
    draws = _uniform(rng)
    domains = [_rules(domain) for domain in DOMAINS]
    texts = []
    for sign in signs:
        rules = domains[int(next(draws) * len(domains))]
        text = _expand(f"{sign}review", rules, draws, set())
        texts.append(re.sub(r"\ba (?=[aeiou])", "an ", " ".join(text.split())))
    return Corpus(texts, [LABELS[sign] for sign in signs])


def _uniform(rng: np.random.Generator) -> Iterator[float]:
    while True:
        yield from rng.random(10_000).tolist()


def _rules(domain: Mapping[str, list[str]]) -> Rules:
    """The productions by signed symbol, each as text, signed symbol, text, ..., text: under "-core"
    {adj} is "-adj" and {~adj} is "+adj"."""
    rules = {}
    for sign, other in ("+-", "-+"):
        for symbol in {key.lstrip("+-") for key in [*GRAMMAR, *domain]}:
            rules[sign + symbol] = [
                re.split("{(.*?)}", re.sub("{(?!~)", "{" + sign, production).replace("~", other))
                for source in (GRAMMAR, domain)
                for key in (symbol, sign + symbol)
                for production in source.get(key, [])
            ]
    return rules


def _expand(symbol: str, rules: Rules, draws: Iterator[float], said: set[str]) -> str:
    options = rules[symbol]
    production = options[int(next(draws) * len(options))]
    if symbol[1:] in ONCE:
        while production[0] in said:
            production = options[int(next(draws) * len(options))]
        said.add(production[0])
    parts = [*production]
    parts[1::2] = [_expand(part, rules, draws, said) for part in production[1::2]]
    return "".join(parts)
