"""A small network over time in numpy: conv 5/2 -> relu -> conv 5/2 -> relu -> mean -> fully connected.

Its forward pass, in float64, is the reference that the ONNX graph is held against.
"""

import numpy as np
from adam import adam, softmax
from numpy.lib.stride_tricks import sliding_window_view

FILTERS, WIDTH, STRIDE = (12, 24), 5, 2
EPOCHS, RATE = 20, 3e-3


def initial(rng, channels, classes):
    a, b = FILTERS
    shapes = {"conv1": (a, channels, WIDTH), "conv2": (b, a, WIDTH), "dense": (classes, b)}
    weights = {}
    for name, shape in shapes.items():
        weights[f"{name}_w"] = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        weights[f"{name}_b"] = np.zeros(shape[0], np.float32)
    return weights


def neighbours(x):
    """[N, C, T', WIDTH]: what each step of a convolution sees."""
    return sliding_window_view(x, WIDTH, axis=2)[:, :, ::STRIDE]


def conv_relu(x, w, b):
    return np.maximum(np.tensordot(neighbours(x), w, axes=([1, 3], [1, 2])).transpose(0, 2, 1) + b[:, None], 0)


def layers(p, x):
    h1 = conv_relu(x, p["conv1_w"], p["conv1_b"])
    h2 = conv_relu(h1, p["conv2_w"], p["conv2_b"])
    mean = h2.mean(axis=2)
    return h1, h2, mean, mean @ p["dense_w"].T + p["dense_b"]


def forward(p, x):
    """Logits [N, classes] in float64, of windows [N, C, T]."""
    exact = {name: w.astype(np.float64) for name, w in p.items()}
    return layers(exact, x.astype(np.float64))[-1]


def gradients(p, x, truth):
    h1, h2, mean, logits = layers(p, x)
    soft = softmax(logits)
    soft[np.arange(len(truth)), truth] -= 1
    d_logits = soft / len(truth)
    d_h2 = ((d_logits @ p["dense_w"]) / h2.shape[2])[:, :, None] * (h2 > 0)
    d_seen = np.tensordot(d_h2, p["conv2_w"], axes=([1], [0]))  # [N, T', A, WIDTH]
    d_h1 = np.zeros_like(h1)
    for tap in range(WIDTH):
        d_h1[:, :, tap : tap + STRIDE * h2.shape[2] : STRIDE][:, :, : h2.shape[2]] += d_seen[..., tap].transpose(0, 2, 1)
    d_h1 *= h1 > 0
    return {
        "conv1_w": np.tensordot(d_h1, neighbours(x), axes=([0, 2], [0, 2])),
        "conv1_b": d_h1.sum(axis=(0, 2)),
        "conv2_w": np.tensordot(d_h2, neighbours(h1), axes=([0, 2], [0, 2])),
        "conv2_b": d_h2.sum(axis=(0, 2)),
        "dense_w": d_logits.T @ mean,
        "dense_b": d_logits.sum(axis=0),
    }


def train(x, truth, classes, seed):
    rng = np.random.default_rng(seed)
    p = initial(rng, x.shape[1], classes)
    return adam(p, lambda rows: gradients(p, x[rows], truth[rows]), len(x), rng, EPOCHS, RATE)
