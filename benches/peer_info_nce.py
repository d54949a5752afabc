#!/usr/bin/env python3
"""What `hbt bench --op info_nce` is compared with: InfoNCE over a batch's embeddings, forward and backward, in PyTorch.

    python3 benches/peer_info_nce.py 4096 16384            # numbers of queries, and of as many passages
    python3 benches/peer_info_nce.py --cached 4096 16384   # sentence-transformers' cached loss, chunks of 1,024 rows

f32, embeddings of size 384, temperature 0.02, two threads; the best of a few runs, and the peak memory so far.
"""

import argparse
import resource
import time

import torch
import torch.nn.functional as F

SIZE, TEMPERATURE, ROWS = 384, 0.02, 1024


def plain(queries, passages):
    loss = F.cross_entropy(queries @ passages.T / TEMPERATURE, torch.arange(len(queries)))
    loss.backward()
    return loss.item()


def cached(queries, passages):
    # The scores of row chunks, and their gradients at the embeddings: what remains when the model's passes are left out.
    from sentence_transformers import losses

    loss = losses.CachedMultipleNegativesRankingLoss(torch.nn.Sequential(torch.nn.Identity()), scale=1 / TEMPERATURE, mini_batch_size=ROWS)
    chunks = [[c.detach().requires_grad_() for c in side.split(ROWS)] for side in (queries, passages)]
    return loss.calculate_loss(chunks, with_backward=True).item()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("n", type=int, nargs="+")
    parser.add_argument("--cached", action="store_true")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.cached:
        import sentence_transformers.losses  # noqa: F401, not to be timed
    for n in args.n:
        torch.manual_seed(0)
        queries, passages = (F.normalize(torch.randn(n, SIZE), dim=1).requires_grad_() for _ in range(2))
        best = float("inf")
        for _ in range(args.repeat):
            queries.grad = passages.grad = None
            start = time.perf_counter()
            loss = (cached if args.cached else plain)(queries, passages)
            best = min(best, time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{n}: {best:.3f} s, loss {loss:.4f}, peak {peak:.2f} GiB", flush=True)


if __name__ == "__main__":
    main()
