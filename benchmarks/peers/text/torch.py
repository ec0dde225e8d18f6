"""PyTorch on the CPU: nn.Embedding, nn.LSTM, the state at each sentence's own last word, nn.Linear,
cross_entropy, Adam."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.peers import Idiom
from fastrnn.benchmarks.peers.torch import recurrent, recurrent_gradients
from fastrnn.benchmarks.texts import BATCH, CLASSES, classifier, split
from fastrnn.text.vocabulary import Sentences

# How it is trained: the module's method, whether batches are of similar lengths, Adam's options.
IDIOMS = {
    "padded": ("padded", False, {}),
    "packed": ("packed", False, {}),
    "padded sorted": ("padded", True, {}),
    "packed sorted": ("packed", True, {}),
    "padded sorted fused": ("padded", True, {"fused": True}),
}


def build(case: Case, operands: dict[str, object]) -> dict[str, Idiom]:
    """Training in several ways; the prediction of the recurrent classifier."""
    if case.direction == "training":
        return {name: _training(case, *way, **operands) for name, way in IDIOMS.items()}
    if case.direction == "predict" and case.H:
        return {"": _predict(case, **operands)}
    return {}


class _Classifier(torch.nn.Module):
    """fastrnn's classifier of a case, written as PyTorch's users write it."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        ours = classifier(case).networks[0].params
        dtype = torch.from_numpy(ours["b"]).dtype
        self.embed = torch.nn.Embedding(case.V, case.D, dtype=dtype)
        self.cell = recurrent(case, {name: ours[f"{name}_f"] for name in ("Wx", "Wh", "b")})
        self.linear = torch.nn.Linear(case.H, len(CLASSES), dtype=dtype)
        with torch.no_grad():
            self.embed.weight.copy_(torch.from_numpy(ours["W_embed"]))
            self.linear.weight.copy_(torch.from_numpy(ours["W"].T))
            self.linear.bias.copy_(torch.from_numpy(ours["b"]))

    def padded(self, sentences: Sequence[torch.Tensor]) -> torch.Tensor:
        """Scores from the output at each sentence's last word."""
        last = torch.tensor([len(words) - 1 for words in sentences])
        h, _ = self.cell(self.embed(pad_sequence(sentences, batch_first=True)))
        return self.linear(h[torch.arange(len(h)), last])

    def packed(self, sentences: Sequence[torch.Tensor]) -> torch.Tensor:
        """Scores from the last states of packed sequences."""
        lengths = torch.tensor([len(words) for words in sentences])
        x = self.embed(pad_sequence(sentences, batch_first=True))
        x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = self.cell(x)
        return self.linear(h[-1])

    def gradients(self, cell: str) -> dict[str, np.ndarray]:
        """By our names, in our layout."""
        layer = recurrent_gradients(cell, self.cell)
        return {
            "W_embed": self.embed.weight.grad.numpy(),
            **{f"{name}_f": layer[name] for name in ("Wx", "Wh", "b")},
            "W": self.linear.weight.grad.numpy().T,
            "b": self.linear.bias.grad.numpy(),
        }


def _training(
    case: Case,
    way: str,
    similar: bool,
    options: dict[str, bool],
    sentences: Sentences,
    y: np.ndarray,
) -> Idiom:
    words, y = [torch.from_numpy(w) for w in split(sentences)], torch.from_numpy(y)
    rng = np.random.default_rng(0)

    def start() -> tuple[_Classifier, Callable[[np.ndarray], torch.Tensor]]:
        model = _Classifier(case)
        adam = torch.optim.Adam(model.parameters(), lr=1e-3, **options)

        def step(batch: np.ndarray) -> torch.Tensor:
            adam.zero_grad()
            scores = getattr(model, way)([words[i] for i in batch])
            loss = torch.nn.functional.cross_entropy(scores, y[batch])
            loss.backward()
            adam.step()
            return loss

        return model, step

    _, step = start()

    def epoch() -> None:
        order = rng.permutation(len(y))
        if similar:
            order = order[np.argsort(sentences.lengths[order], kind="stable")]
        for batch in rng.permutation(order.reshape(-1, BATCH)):
            step(batch)

    def collect(_: None) -> dict[str, np.ndarray]:
        fresh, step = start()
        loss = step(np.arange(BATCH))
        return {"loss": loss.detach().numpy(), **fresh.gradients(case.cell)}

    return Idiom(epoch, collect)


def _predict(case: Case, text: str) -> Idiom:
    model, index = _Classifier(case).eval(), classifier(case).vocabulary.index

    def run() -> torch.Tensor:
        words = torch.tensor([[index.get(word, 0) for word in text.split()]])
        _, (h, _) = model.cell(model.embed(words))
        return torch.softmax(model.linear(h[-1]), dim=1)

    return Idiom(run, lambda proba: {"probabilities": proba.numpy()}, torch.inference_mode)
