"""A small convolutional network in numpy: forward, backward and Adam.

image / 16 -> conv 3x3 -> relu -> conv 3x3 -> relu -> maxpool 2x2 -> fully connected.
Its forward pass, in float64, is the reference that the ONNX graph is held against.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from recipes import DIGITS_UNIT

FILTERS = (32, 64)
EPOCHS, BATCH, RATE, DECAY = 30, 32, 1e-3, 1e-4


def initial(rng: np.random.Generator) -> dict[str, np.ndarray]:
    a, b = FILTERS
    shapes = {"conv1": (a, 1, 3, 3), "conv2": (b, a, 3, 3), "dense": (10, b * 16)}
    weights = {}
    for name, shape in shapes.items():
        scale = np.sqrt(2 / np.prod(shape[1:]))
        weights[f"{name}_w"] = rng.normal(0, scale, shape).astype(np.float32)
        weights[f"{name}_b"] = np.zeros(shape[0], np.float32)
    return weights


def windows(x):
    """The 3x3 neighbourhood of every pixel: [N,C,H,W,3,3]."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sliding_window_view(padded, (3, 3), axis=(2, 3))


def conv(x, w):
    return np.tensordot(windows(x), w, axes=([1, 4, 5], [1, 2, 3])).transpose(0, 3, 1, 2)


def conv_relu(x, w, b):
    return np.maximum(conv(x, w) + b[:, None, None], 0)


def layers(p, images):
    """Every layer's output, which the backward pass needs."""
    x = images / DIGITS_UNIT
    h1 = conv_relu(x, p["conv1_w"], p["conv1_b"])
    h2 = conv_relu(h1, p["conv2_w"], p["conv2_b"])
    n, c, h, w = h2.shape
    pooled = h2.reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))
    flat = pooled.reshape(n, -1)
    return x, h1, h2, pooled, flat, flat @ p["dense_w"].T + p["dense_b"]


def forward(p, images):
    """Logits [N,10] in float64."""
    exact = {name: w.astype(np.float64) for name, w in p.items()}
    return layers(exact, images.astype(np.float64))[-1]


def spread(pooled):
    """Each value over the 2x2 pixels that it was the largest of."""
    return pooled.repeat(2, axis=2).repeat(2, axis=3)


def gradients(p, images, truth):
    """Of the mean cross-entropy, by the chain rule from the last layer to the first."""
    x, h1, h2, pooled, flat, logits = layers(p, images)
    soft = np.exp(logits - logits.max(axis=1, keepdims=True))
    soft /= soft.sum(axis=1, keepdims=True)
    soft[np.arange(len(truth)), truth] -= 1
    d_logits = soft / len(truth)

    d_pooled = (d_logits @ p["dense_w"]).reshape(pooled.shape)
    d_h2 = spread(d_pooled) * (h2 == spread(pooled)) * (h2 > 0)
    turned = p["conv2_w"].transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
    d_h1 = conv(d_h2, turned) * (h1 > 0)

    over = ([0, 2, 3], [0, 2, 3])
    return {
        "conv1_w": np.tensordot(d_h1, windows(x), axes=over),
        "conv1_b": d_h1.sum(axis=(0, 2, 3)),
        "conv2_w": np.tensordot(d_h2, windows(h1), axes=over),
        "conv2_b": d_h2.sum(axis=(0, 2, 3)),
        "dense_w": d_logits.T @ flat,
        "dense_b": d_logits.sum(axis=0),
    }


def train(images, truth, seed):
    """Adam with decoupled weight decay; the rate falls to zero along a cosine."""
    rng = np.random.default_rng(seed)
    p = initial(rng)
    first = {name: np.zeros_like(w) for name, w in p.items()}
    second = {name: np.zeros_like(w) for name, w in p.items()}
    steps = EPOCHS * (len(images) // BATCH)
    step = 0
    while step < steps:
        order = rng.permutation(len(images))
        for at in range(0, len(images) - BATCH + 1, BATCH):
            rows = order[at : at + BATCH]
            rate = RATE * (1 + np.cos(np.pi * step / steps)) / 2
            step += 1
            for name, g in gradients(p, images[rows], truth[rows]).items():
                first[name] += 0.1 * (g - first[name])
                second[name] += 0.001 * (g * g - second[name])
                mean = first[name] / (1 - 0.9**step)
                size = np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8
                p[name] -= (rate * (mean / size + DECAY * p[name])).astype(np.float32)
    return p
