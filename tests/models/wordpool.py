"""The text model: word pieces -> embedding -> mean over the words -> fully connected; numpy and Adam.

Its forward pass, in float64, is the reference that the ONNX graph is held against.
"""

import numpy as np
from adam import adam, softmax
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

WORDS, WIDTH, LENGTH = 400, 16, 24
EPOCHS, RATE = 60, 1e-2
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def tokenizer(texts: list[str]) -> Tokenizer:
    """Word pieces as BERT has them. Not the same from run to run: equal counts are ordered by chance."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=WORDS, special_tokens=SPECIAL, show_progress=False)
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def encoded(path, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and attention mask [N, LENGTH], as `text/pre.json` declares."""
    ready = Tokenizer.from_file(str(path))
    ready.enable_truncation(LENGTH)
    ready.enable_padding(length=LENGTH, pad_id=0, pad_token="[PAD]")
    made = ready.encode_batch(texts)
    return np.array([one.ids for one in made]), np.array([one.attention_mask for one in made])


def pooled(p, ids, mask):
    return (p["embedding"][ids] * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)


def forward(p, ids, mask):
    """Logits [N, 4] in float64."""
    exact = {name: w.astype(np.float64) for name, w in p.items()}
    return pooled(exact, ids, mask) @ exact["dense_w"].T + exact["dense_b"]


def train(ids, mask, truth, classes, seed):
    rng = np.random.default_rng(seed)
    p = {
        "embedding": rng.normal(0, 0.3, (WORDS, WIDTH)).astype(np.float32),
        "dense_w": rng.normal(0, 0.3, (classes, WIDTH)).astype(np.float32),
        "dense_b": np.zeros(classes, np.float32),
    }
    return adam(p, lambda rows: gradients(p, ids[rows], mask[rows], truth[rows]), len(ids), rng, EPOCHS, RATE)


def gradients(p, ids, mask, truth):
    mean = pooled(p, ids, mask)
    soft = softmax(mean @ p["dense_w"].T + p["dense_b"])
    soft[np.arange(len(truth)), truth] -= 1
    d_logits = soft / len(truth)
    d_each = (d_logits @ p["dense_w"])[:, None] * (mask / mask.sum(axis=1, keepdims=True))[..., None]
    d_embedding = np.zeros_like(p["embedding"])
    np.add.at(d_embedding, ids, d_each.astype(np.float32))
    return {"embedding": d_embedding, "dense_w": d_logits.T @ mean, "dense_b": d_logits.sum(axis=0)}
