"""A large retrieval task made on the spot, mteb's own search of it, and a check of hbt's rankings against numpy.

    python peer_retrieval.py make OUT [--documents 2000000] [--queries 1000] [--dim 384]
    hbt eval --task retrieval --data OUT/data --embeddings OUT/emb --runs OUT/runs --trace OUT/trace.json
    python peer_retrieval.py search OUT          # mteb's search of the same vectors: seconds in products, top k and merging
    python peer_retrieval.py check OUT           # hbt's run file against numpy, 20 queries
    hbt eval --task retrieval --data OUT/data    # the built-in encoder, with the corpus embedded window by window

`make` and `check` need numpy, `search` mteb 2.26 (and so PyTorch). Passages are short words by a hash of their number, vectors are
normal. Threads: those that the environment gives (OMP_NUM_THREADS, taskset).
"""

import argparse
import json
import pathlib
import time

import numpy as np

WORDS = "river bridge poem winter bird map clock mill stone letter garden harbour window engine forest island".split()
CHUNK = 50_000


def vectors(seed, start, n, dim):
    return np.random.default_rng([seed, start]).standard_normal((n, dim), dtype=np.float32)


def words(number, n):
    state = number * 2654435761 + 12345
    for _ in range(n):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield WORDS[state >> 60]


def make(args):
    data, emb = args.out / "data", args.out / "emb"
    (data / "qrels").mkdir(parents=True, exist_ok=True)
    emb.mkdir(exist_ok=True)
    with open(data / "corpus.jsonl", "w") as f:
        for i in range(args.documents):
            f.write(json.dumps({"_id": f"d{i}", "title": "", "text": f"{' '.join(words(i, 6))} {i}"}) + "\n")
    with open(data / "queries.jsonl", "w") as f:
        f.writelines(json.dumps({"_id": f"q{i}", "text": f"{' '.join(words(-1 - i, 4))} {i}"}) + "\n" for i in range(args.queries))
    with open(data / "qrels" / "test.tsv", "w") as f:
        f.write("query-id\tcorpus-id\tscore\n")
        f.writelines(f"q{i}\td{i * 7919 % args.documents}\t1\n" for i in range(args.queries))
    for side, n, seed in [("queries", args.queries, 1), ("corpus", args.documents, 2)]:
        out = np.lib.format.open_memmap(emb / f"default.{side}.npy", "w+", np.float32, (n, args.dim))
        for start in range(0, n, CHUNK):
            out[start : start + CHUNK] = vectors(seed, start, min(CHUNK, n - start), args.dim)
        out.flush()


def load(out):
    return [np.load(out / "emb" / f"default.{side}.npy", mmap_mode="r") for side in ("queries", "corpus")]


def search(args):
    """mteb's loop over chunks, with embeddings at hand: encoding is a slice of a file."""
    import mteb.models.search_wrappers as wrappers
    import torch
    from mteb.similarity_functions import cos_sim

    queries, corpus = load(args.out)

    class Corpus:
        def __init__(self, rows):
            self.rows = rows

        def __len__(self):
            return len(self.rows)

        def select(self, rows):
            return Corpus(self.rows[rows.start : rows.stop])

        def __getitem__(self, key):
            return (f"d{i}" for i in self.rows)

    taken = {"encode": 0.0}
    wrappers.create_dataloader = lambda corpus, **_: corpus

    def encode(rows, **_):
        start = time.perf_counter()
        chunk = torch.from_numpy(np.array(corpus[rows.rows.start : rows.rows.stop]))
        taken["encode"] += time.perf_counter() - start
        return chunk

    start = time.perf_counter()
    found = wrappers.chunked_full_corpus_search(
        task_corpus=Corpus(range(len(corpus))),
        corpus_chunk_size=CHUNK,
        query_idx_to_id={i: f"q{i}" for i in range(len(queries))},
        query_embeddings=torch.from_numpy(np.array(queries)),
        task_metadata=None,
        hf_subset="default",
        hf_split="test",
        top_k=1000,
        encode_kwargs={"show_progress_bar": False},
        encode_fn=encode,
        similarity_fn=cos_sim,
        search_k_offset=1,
    )
    seconds = time.perf_counter() - start
    flops = 2.0 * len(queries) * len(corpus) * corpus.shape[1]
    print(f"mteb: {seconds:.1f} s, of which {taken['encode']:.1f} s read vectors; {flops / (seconds - taken['encode']) / 1e9:.1f} GFLOP/s")
    print(f"best of q0: {max(found['q0'])}")


def check(args):
    queries, corpus = load(args.out)
    runs = list((args.out / "runs").rglob("*.trec"))
    assert len(runs) == 1, runs
    sample = {f"q{i}": i for i in range(0, len(queries), max(1, len(queries) // 20))}
    ranked = {}
    with open(runs[0]) as f:
        for line in f:
            query, _, document, rank, score, _ = line.split()
            if query in sample:
                ranked.setdefault(query, []).append((int(document[1:]), float(score)))
    q = np.array(queries[list(sample.values())], dtype=np.float64)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    scores = np.empty((len(sample), len(corpus)))
    for start in range(0, len(corpus), CHUNK):
        d = np.array(corpus[start : start + CHUNK], dtype=np.float64)
        scores[:, start : start + CHUNK] = q @ (d / np.linalg.norm(d, axis=1, keepdims=True)).T
    worst = 0.0
    for query, of in zip(sample, scores):
        documents = np.array([document for document, _ in ranked[query]])
        best = np.sort(of)[::-1][: len(documents)]
        assert len(documents) == min(1000, len(corpus)) and len(set(documents)) == len(documents), query
        # Scores in f32 may exchange neighbours; none may be missing by more than that.
        worst = max(worst, np.abs(of[documents] - best).max(), np.abs([s for _, s in ranked[query]] - of[documents]).max())
    print(f"{len(sample)} rankings of {len(documents)}: scores differ from numpy's in f64 by at most {worst:.1e}")
    raise SystemExit(int(worst > 1e-6))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "search", "check"])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--documents", type=int, default=2_000_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--dim", type=int, default=384)
    args = parser.parse_args()
    {"make": make, "search": search, "check": check}[args.what](args)


if __name__ == "__main__":
    main()
