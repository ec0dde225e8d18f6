"""Training by several processes
=============================

The text LSTM trained by several processes, which share the sentences of every batch::

    torchrun --standalone --nproc-per-node 2 distributed_text.py [--train FILE] [--epochs 4]

DDP averages the gradients of their shares, which are of one size: all take the whole batch's step.
"""

import argparse
import hashlib

import numpy as np
import torch
from torch import distributed, nn

import fastrnn.torch
from fastrnn.text import grammar, read_labelled, vocabulary


class Classifier(nn.Module):
    """Scores (N, C) of N tensors of word indices, by the state after each one's last word."""

    def __init__(self, V, C, W=100, H=128):
        super().__init__()
        self.embed, self.lstm = nn.Embedding(V, W), fastrnn.torch.LSTM(W, H)
        self.linear = nn.Linear(H, C)

    def forward(self, sentences):
        vectors = self.embed(torch.cat(sentences)).split([len(words) for words in sentences])
        _, (h, _) = self.lstm(nn.utils.rnn.pack_sequence(vectors, enforce_sorted=False))
        return self.linear(h[-1])


def main(train, epochs):
    rank, world, rng = distributed.get_rank(), distributed.get_world_size(), torch.Generator()
    texts, labels, _ = read_labelled(train) if train else grammar.make_reviews(12_000, seed=0)
    words, (classes, y) = vocabulary.Vocabulary.of(texts), np.unique(labels, return_inverse=True)
    sentences = words.encode([f"<s> {text}" for text in texts])  # none of them without words
    x, y = torch.tensor(sentences.words).split(sentences.lengths.tolist()), torch.tensor(y)
    held_out, left = torch.randperm(len(y), generator=rng).tensor_split([len(y) // 6])
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(Classifier(len(words), len(classes)))
    adam = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        order = left[torch.randperm(len(left), generator=rng)][: len(left) // 64 * 64]
        for share in order.view(-1, world, 64 // world)[:, rank]:
            adam.zero_grad()
            nn.functional.cross_entropy(model([x[i] for i in share]), y[share]).backward()
            adam.step()
    right = (model.module([x[i] for i in held_out]).argmax(dim=1) == y[held_out]).double().mean()
    digest = hashlib.sha256(b"".join(w.detach().numpy().data for w in model.parameters()))
    print(f"process {rank}: {right:.1%} right, weights {digest.hexdigest()[:16]}\n", end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--train")
    parser.add_argument("--epochs", type=int, default=4)
    distributed.init_process_group("gloo")
    main(**vars(parser.parse_args()))
    distributed.destroy_process_group()
