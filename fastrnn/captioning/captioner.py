"""Whatever says captions: one model, or several together.

Letters: N pictures, M rows, D features, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fastrnn.captioning import decode
from fastrnn.captioning.vocabulary import END, NULL, START, UNK

# Which of some hypotheses to say, (N,), for features of pictures.
Choose = Callable[[np.ndarray, decode.Hypotheses], np.ndarray]
SAMPLE_ROWS = 128  # pictures captioned at once: a beam's scores take B * V doubles for each


class Captioner:
    """Says captions by start, which a subclass has.

    Parameters: word_to_idx, word to index in [0, V), with <NULL> and, to sample, <START> and <END>.
    Attributes: word_to_idx, idx_to_word, null. Raises ValueError without <NULL>.
    """

    def __init__(self, word_to_idx: Mapping[str, int]) -> None:
        if NULL not in word_to_idx:
            raise ValueError(f"word_to_idx: expected an entry for {NULL}")
        self.word_to_idx = dict(word_to_idx)
        self.idx_to_word = {i: word for word, i in word_to_idx.items()}
        self.null = self.word_to_idx[NULL]

    def start(self, features: np.ndarray) -> tuple[decode.Step, decode.State]:
        """A step of words, and the state before the first one, for pictures' features."""
        raise NotImplementedError

    def sample(
        self,
        features: np.ndarray,
        max_length: int = 30,
        *,
        beam_size: int = 1,
        length_penalty: float = 1.0,
        diverse_groups: int = 1,
        diversity: float = 0.5,
        choose: Choose | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        suppress_unk: bool = False,
        block_ngrams: int = 0,
        seed: int | None = None,
    ) -> np.ndarray:
        """Captions for pictures: greedy by default, beam search with beam_size > 1, random with a
        temperature (1: the model's own distribution), top_k or top_p.

        Inputs: features (N, D); max_length, most words; beam_size, hypotheses kept a picture,
        ranked by log-probability / length**length_penalty; diverse_groups, in which they are kept:
        a word loses diversity of its log-probability for each hypothesis of the groups before that
        says it at the same place (Vijayakumar et al. 2018); choose, which of a beam's hypotheses to
        say (features of pictures, decode.Hypotheses of them -> (N,) indices; None: the first);
        top_k, the number of likeliest words to draw from; top_p, the probability they must cover
        (nucleus, Holtzman et al. 2020); suppress_unk, never say <UNK>; block_ngrams, of how many
        words in a row none comes twice in a caption (0: any may; 3: Paulus et al. 2018); seed of
        the draw.
        Returns: captions (N, max_length) of word indices without <START>, <NULL> after <END>;
        <NULL> and <START> are never said. Raises ValueError for parameters out of range.
        """
        vocabulary = self._vocabulary(suppress_unk, block_ngrams)
        random = temperature is not None or top_k is not None or top_p is not None
        beam = decode.Beam(beam_size, length_penalty, diverse_groups, diversity)
        if beam_size > 1 and random:
            raise ValueError("beam_size: a beam is not random; drop temperature, top_k, top_p")
        if beam_size == 1 and choose is not None:
            raise ValueError("choose: expected None without a beam to choose from")
        word = decode.likeliest
        if random:
            word = decode.Draw(1.0 if temperature is None else temperature, top_k, top_p, seed)

        def say(rows: np.ndarray) -> np.ndarray:
            start = *self.start(rows), vocabulary, max_length
            if beam_size == 1:
                return decode.generate(*start, word)
            found = decode.beam_search(*start, beam, n_best=beam_size if choose else 1)
            best = choose(rows, found) if choose else np.zeros(len(rows), int)
            return found.words[np.arange(len(rows)), best]

        blocks = range(0, max(1, len(features)), SAMPLE_ROWS)
        return np.concatenate([say(features[i : i + SAMPLE_ROWS]) for i in blocks])

    def _vocabulary(self, suppress_unk, block_ngrams):
        missing = [word for word in (START, END) if word not in self.word_to_idx]
        if missing:
            raise ValueError(f"word_to_idx: expected an entry for {missing[0]} to sample")
        if block_ngrams < 0:
            raise ValueError(f"block_ngrams: expected at least 0, got {block_ngrams}")
        special = [word for word in (NULL, START, UNK) if word != UNK or suppress_unk]
        banned = [self.word_to_idx[word] for word in special if word in self.word_to_idx]
        words = (self.word_to_idx[word] for word in (NULL, START, END))
        return decode.Vocabulary(*words, banned, block_ngrams)


class Ensemble(Captioner):
    """Several captioners together: the next word's distribution is the mean of theirs.

    Parameters: models, of one vocabulary, that take the same features.
    Raises ValueError without a model, and for different vocabularies.
    """

    def __init__(self, models: Sequence[Captioner]) -> None:
        if not models:
            raise ValueError("models: expected at least one")
        super().__init__(models[0].word_to_idx)
        for i, model in enumerate(models):
            if model.word_to_idx != self.word_to_idx:
                raise ValueError(f"models: expected one vocabulary, but model {i} has another")
        self.models = list(models)

    def start(self, features: np.ndarray) -> tuple[decode.Step, decode.State]:
        """The step of all models, whose state is their states one after the other."""
        steps, states = zip(*(model.start(features) for model in self.models), strict=True)
        ends = np.cumsum([len(state) for state in states])
        parts = [slice(end - len(s), end) for end, s in zip(ends, states, strict=True)]

        def step(words: np.ndarray, state: decode.State) -> tuple[np.ndarray, decode.State]:
            results = [f(words, state[part]) for f, part in zip(steps, parts, strict=True)]
            logs = np.stack([decode.log_softmax(scores) for scores, _ in results])
            mean = np.logaddexp.reduce(logs) - np.log(len(logs))
            return mean, tuple(array for _, after in results for array in after)

        return step, tuple(array for state in states for array in state)

    def looks(self, features: np.ndarray, captions: np.ndarray) -> np.ndarray:
        """Where the models' attention looks in the mean, as CaptioningRNN.looks."""
        return np.mean([model.looks(features, captions) for model in self.models], axis=0)


def together(models: Sequence[Captioner]) -> Captioner:
    """The one of these models, or an Ensemble of several."""
    return models[0] if len(models) == 1 else Ensemble(models)
