"""A convolution is an affine layer
================================

It is y = A x with a matrix A, and its gradient A' dy is the transposed convolution.

The homework solution's cases: a 2x2 kernel on 3x3, padding 1, stride 3 (its y is right, its A has 8
columns for 9 elements of x); a 2x2 kernel transposed, stride 2 (right); and kernels (4, 1, 1, 1)
beside (1, 1, 2, 2) transposed: A_T = P A_C, the same but for the order of y, which shuffles pixels.
"""

import sys

import numpy as np
import torch
from torch.nn import functional as F

import fastrnn.figures


def conv_matrix(w, height, width, stride=1, padding=0):
    """A of kernels w (C_out, C_in, kh, kw) for pictures (C_in, height, width), flattened."""
    C_out, C_in, kh, kw = w.shape
    P, Q = (height + 2 * padding - kh) // stride + 1, (width + 2 * padding - kw) // stride + 1
    A = np.zeros((C_out, P, Q, C_in, height, width))
    for p, q, u, v in np.ndindex(P, Q, kh, kw):
        row, column = p * stride + u - padding, q * stride + v - padding
        if 0 <= row < height and 0 <= column < width:
            A[:, p, q, :, row, column] = w[:, :, u, v]
    return A.reshape(C_out * P * Q, C_in * height * width)


def main(folder="."):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 3, 7, 6)), rng.normal(size=(4, 3, 3, 2))
    A = conv_matrix(w, 7, 6, stride=2, padding=1)
    y, cache = fastrnn.affine_forward(x, A.T, np.zeros(len(A)))
    dx, *_ = fastrnn.affine_backward(y, cache)
    conv = F.conv2d(torch.tensor(x), torch.tensor(w), stride=2, padding=1)
    transposed = F.conv_transpose2d(conv, torch.tensor(w), stride=2, padding=1)
    print(f"A x is conv2d's, to {abs(y - conv.flatten(1).numpy()).max():.0e}")
    print(f"A' y is conv_transpose2d's, to {abs(dx - transposed.numpy()).max():.0e}")

    w = np.arange(1.0, 5).reshape(1, 1, 2, 2)
    A = conv_matrix(w, 3, 3, stride=3, padding=1)
    names = "W00", "W01", "W10", "W11"
    print("y =", *(f"{names[int(A[i, j]) - 1]} x{j // 3}{j % 3}" for i, j in np.argwhere(A)))
    A_T, A_C = conv_matrix(w, 4, 4, stride=2).T, conv_matrix(w.reshape(4, 1, 1, 1), 2, 2)
    order = (A_T[:, None] == A_C).all(axis=2).argmax(axis=1)
    shuffled = F.pixel_shuffle(torch.arange(16).reshape(4, 2, 2), 2).flatten()
    print("A_T x is A_C x in the order", *order, "or, of a pixel shuffle,", *shuffled.tolist())
    w = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    titles = "2x2 on 3x3", "3x3 on 6x6", "A_T", "= P", "A_C"
    matrices = A, conv_matrix(w, 6, 6), A_T, np.eye(16)[order], A_C
    figure = fastrnn.figures.new(13, 3.6)
    panels = figure.subplots(1, 5, width_ratios=[matrix.shape[1] for matrix in matrices])
    for axes, title, matrix in zip(panels, titles, matrices, strict=True):
        axes.imshow(np.where(matrix, matrix, np.nan))
        axes.set(title=title, xticks=[], yticks=[])
    fastrnn.figures.save(figure, f"{folder}/conv_as_affine.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
