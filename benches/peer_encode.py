#!/usr/bin/env python3
"""The peer that hbt's encoding speed is compared with: sentence-transformers' `encode`.

Embeds the texts that `hbt eval --task xquad-r` embeds (all questions, and all sentences of paragraphs with a question), with
the same prefixes and the same cut at 256 tokens. MODEL is a BERT in Hugging Face layout that takes mean pooling, such as
multilingual-E5-small.

    pip install torch sentence-transformers
    python3 benches/peer_encode.py --model e5 --data xquad-r --every 17 --write-texts sample.jsonl [--bf16]
    hbt encode --model e5 --input sample.jsonl --output sample.npy --set pooling=mean --set passage_prefix= \\
        --set passage_max_len=256 --precision bf16

--every N takes each Nth text only; the texts it took, prefix included, go to --write-texts, so that hbt does the very same
work. The model is loaded and warmed up before the clock starts. Prints one line of JSON.
"""
import argparse
import json
import time
from functools import partial
from pathlib import Path


def texts(xquad):
    """Prefixed texts, questions before sentences, language by language."""
    queries, passages = [], []
    for path in sorted(xquad.glob("??.json")):
        for article in json.loads(path.read_text())["data"]:
            for paragraph in article["paragraphs"]:
                queries += ["query: " + qa["question"] for qa in paragraph["qas"]]
                passages += ["passage: " + sentence for sentence in paragraph["sentences"] if paragraph["qas"]]
    return queries + passages


def load(args):
    import torch
    from sentence_transformers import SentenceTransformer

    if args.threads:
        torch.set_num_threads(args.threads)
    # A directory that says nothing of pooling gets mean pooling.
    model = SentenceTransformer(str(args.model), device="cpu")
    model.max_seq_length = 256
    return model.bfloat16() if args.bf16 else model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, metavar="N")
    parser.add_argument("--batch-size", type=int, default=32, help="sentence-transformers' own default")
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--bf16", action="store_true", help="the model's weights and activations in bfloat16")
    parser.add_argument("--write-texts", type=Path, metavar="FILE.jsonl")
    parser.add_argument("--write-vectors", type=Path, metavar="FILE.npy")
    args = parser.parse_args()
    chosen = texts(args.data)[:: args.every]
    if args.write_texts:
        rows = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in chosen)
        args.write_texts.write_text("".join(rows), encoding="utf-8")
    model = load(args)
    encode = partial(model.encode, batch_size=args.batch_size, normalize_embeddings=True)
    encode(chosen[: args.batch_size])
    start = time.perf_counter()
    vectors = encode(chosen)
    seconds = time.perf_counter() - start
    if args.write_vectors:
        import numpy

        numpy.save(args.write_vectors, vectors)
    print(json.dumps({
        "precision": "bf16" if args.bf16 else "f32", "texts": len(chosen), "seconds": round(seconds, 2),
        "texts_per_s": round(len(chosen) / seconds, 1),
    }))


main()
