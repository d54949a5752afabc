#!/usr/bin/env python3
"""The peer that hbt's training speed is compared with: PyTorch and transformers, the usual way.

Does the work of `hbt train` with hybrid batches on XQuAD-R: one BERT for queries and passages, prefixes as multilingual-E5
has them, mean pooling, cosines divided by 0.05, the other queries' passages as negatives, dropout as the model's
configuration says, clipping at 1, AdamW. Texts are padded to the longest of their batch; attention (sdpa) and optimizer are
PyTorch's fused ones. MODEL is a BERT in Hugging Face layout, such as multilingual-E5-small; DATA is XQuAD-R's directory.

    pip install torch transformers
    python3 benches/peer_train.py --model e5 --data xquad-r --batch 32 --steps 6            # beside hbt's f32
    python3 benches/peer_train.py --model e5 --data xquad-r --batch 32 --steps 6 --bf16     # autocast, f32 weights

Prints one line of JSON: real (non-padding) tokens a second over all timed steps and in each, the same with padding, pairs a
second, and the peak of the process's memory. The first step is not timed; tokenizing is part of a step (hbt has tokenized its
data before the first one). On a machine with other work, let the two programs take turns.
"""

import argparse
import json
import os
import random
import resource
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import BertModel, PreTrainedTokenizerFast

ALPHA, TEMPERATURE, LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM = 0.5, 0.05, 2e-5, 0.01, 1.0


def pairs(path):
    """Each question of a language and the sentence in which its answer begins. The n-th of every language are the same."""
    found = []
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                answer = qa["answers"][0]["answer_start"]
                breaks = paragraph["sentence_breaks"]
                index = next((i for i, (start, end) in enumerate(breaks) if start <= answer < end), 0)
                found.append((qa["question"], paragraph["sentences"][index]))
    return found


def draw(rng, languages, n_questions, n):
    """A hybrid batch: language of the queries, language of the passages, numbers of the questions."""
    query_lang = passage_lang = rng.choice(languages)
    if rng.random() >= ALPHA:
        passage_lang = rng.choice([lang for lang in languages if lang != query_lang])
    return query_lang, passage_lang, rng.sample(range(n_questions), n)


class Trainer:
    def __init__(self, args):
        self.args = args
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(args.model)
        self.model = BertModel.from_pretrained(args.model, add_pooling_layer=False, attn_implementation="sdpa").train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
        )

    def embed(self, texts):
        """Unit vectors of the texts, and how many tokens they have without and with padding."""
        batch = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.args.max_len, return_tensors="pt"
        )
        ids, mask = batch["input_ids"], batch["attention_mask"]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.args.bf16):
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask[..., None].float()
        mean = (hidden.float() * weights).sum(1) / weights.sum(1)
        return F.normalize(mean, dim=-1), int(mask.sum()), mask.numel()

    def step(self, queries, passages):
        """Tokenizes and trains on one batch: its loss, and its tokens without and with padding."""
        query, query_tokens, query_padded = self.embed(["query: " + text for text in queries])
        passage, passage_tokens, passage_padded = self.embed(["passage: " + text for text in passages])
        loss = F.cross_entropy(query @ passage.T / TEMPERATURE, torch.arange(len(queries)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item(), query_tokens + passage_tokens, query_padded + passage_padded


def peak_mib():
    """The most memory that the process has held, as `/usr/bin/time -v` counts it."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform != "darwin" else peak / 1024**2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=32, help="queries in a batch, and as many passages")
    parser.add_argument("--steps", type=int, default=6, help="timed steps, after one that is not")
    parser.add_argument("--max-len", type=int, default=256, help="tokens at which texts are cut")
    parser.add_argument("--bf16", action="store_true", help="autocast to bf16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    rng = random.Random(args.seed)
    data = {path.stem: pairs(path) for path in sorted(args.data.glob("??.json"))}
    if len(data) < 2 or len({len(rows) for rows in data.values()}) != 1:
        parser.error(f"{args.data}: expected XQuAD-R's XX.json, at least two, all with the same questions")
    languages, n_questions = list(data), len(next(iter(data.values())))
    trainer = Trainer(args)

    tokens, padded, seconds = [], [], []
    for _ in range(args.steps + 1):
        query_lang, passage_lang, rows = draw(rng, languages, n_questions, args.batch)
        queries = [data[query_lang][row][0] for row in rows]
        passages = [data[passage_lang][row][1] for row in rows]
        start = time.perf_counter()
        loss, n_tokens, n_padded = trainer.step(queries, passages)
        seconds.append(time.perf_counter() - start)
        tokens.append(n_tokens)
        padded.append(n_padded)
    timed = range(1, args.steps + 1)
    total = sum(seconds[1:])
    print(json.dumps({
        "peer": f"torch {torch.__version__}",
        "precision": "bf16" if args.bf16 else "f32",
        "threads": args.threads,
        "tokens_per_s": round(sum(tokens[1:]) / total, 1),
        "tokens_per_s_by_step": [round(tokens[i] / seconds[i], 1) for i in timed],
        "padded_tokens_per_s": round(sum(padded[1:]) / total, 1),
        "pairs_per_s": round(args.batch * args.steps / total, 2),
        "peak_mib": round(peak_mib()),
        "last_loss": round(loss, 4),
    }))


main()
