#!/usr/bin/env python3
"""What `benches/gpu.sh` compares hbt's training steps and losses with: the same work in PyTorch, which is all it needs.

    python3 peer_gpu.py info
    python3 peer_gpu.py train_step xlm-r-base 64       # a model's shape, random weights; texts of 128 tokens
    python3 peer_gpu.py info_nce 65536 768             # queries, as many passages, embedding size

A training step embeds half of the texts as queries and the other half as passages, in one batch; mean pooling, in-batch loss
at temperature 0.05, clipping at 1, AdamW (fused): without dropout, then with dropout 0.1. Weights are f32, products run under
autocast in bf16. Attention is flash-attention's varlen kernel where that package is installed, and PyTorch's
scaled_dot_product_attention; every text has the same length, so that nothing is padded and no mask is needed.

The loss is forward and backward at temperature 0.02, products in bf16: F.cross_entropy over all scores up to 16,384 queries,
above that row by row in chunks of 2,048, as cached losses do it.

Prints a line of JSON for each measurement: the best and the mean of a few runs by the device's events, and the memory that
PyTorch's tensors took at most. The first runs, which choose kernels, are not timed. Where there is no PyTorch or no GPU, the exit
code is 3.
"""

import argparse
import gc
import json
import sys
import time

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    print(f"no PyTorch in {sys.executable}: {error}", file=sys.stderr)
    sys.exit(3)
try:
    from flash_attn import flash_attn_varlen_qkvpacked_func
except ImportError:
    flash_attn_varlen_qkvpacked_func = None

LENGTH = 128
# Layers, hidden size, heads, feed-forward size, vocabulary, rows of the position table, types of tokens.
SHAPES = {
    "minilm-l6": (6, 384, 12, 1536, 30_522, 512, 2),
    "xlm-r-base": (12, 768, 12, 3072, 250_002, 514, 1),
    "xlm-r-large": (24, 1024, 16, 4096, 250_002, 514, 1),
    "tiny": (2, 64, 2, 128, 1000, 514, 1),
}
MOST_QUERIES_AT_ONCE, ROWS = 16_384, 2048


class Layer(nn.Module):
    """A post-LayerNorm transformer layer, as BERT and XLM-R have it."""

    def __init__(self, hidden, heads, feed_forward, dropout, attention):
        super().__init__()
        self.heads, self.p, self.attention = heads, dropout, attention
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, feed_forward), nn.Linear(feed_forward, hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def attend(self, qkv):
        n, length, width = qkv.shape
        qkv = qkv.view(n, length, 3, self.heads, width // 3 // self.heads)
        if self.attention == "flash_attn varlen":
            starts = torch.arange(0, (n + 1) * length, length, dtype=torch.int32, device=qkv.device)
            out = flash_attn_varlen_qkvpacked_func(qkv.flatten(0, 1), starts, length, self.p)
            return out.reshape(n, length, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.p).transpose(1, 2).flatten(2)

    def forward(self, x):
        x = self.norms[0](x + self.dropout(self.out(self.attend(self.qkv(x)))))
        return self.norms[1](x + self.dropout(self.down(F.gelu(self.up(x)))))


class Encoder(nn.Module):
    """Unit vectors of texts of one length."""

    def __init__(self, shape, dropout, attention):
        super().__init__()
        layers, hidden, heads, feed_forward, vocabulary, positions, types = SHAPES[shape]
        self.words, self.positions = nn.Embedding(vocabulary, hidden), nn.Embedding(positions, hidden)
        self.types, self.norm = nn.Embedding(types, hidden), nn.LayerNorm(hidden)
        self.layers = nn.ModuleList(Layer(hidden, heads, feed_forward, dropout, attention) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, ids):
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.types.weight[0]
        x = self.dropout(self.norm(x))
        for layer in self.layers:
            x = layer(x)
        return F.normalize(x.float().mean(1), dim=-1)


class Clock:
    """Seconds between two points of the device's work."""

    def __init__(self, device):
        self.is_cuda = device.type == "cuda"

    def mark(self):
        if not self.is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start, end):
        if not self.is_cuda:
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def measure(args, device, work, result):
    """Runs `work` a few times and prints `result` with how long it took."""
    clock, seconds = Clock(device), []
    for _ in range(args.warm_up):
        work()
    begin = time.perf_counter()
    while len(seconds) < args.least_runs or (time.perf_counter() - begin < args.budget and len(seconds) < 200):
        start = clock.mark()
        work()
        seconds.append(clock.seconds(start, clock.mark()))
    result |= {"seconds": min(seconds), "mean_seconds": sum(seconds) / len(seconds), "runs": len(seconds)}
    if tokens := result.pop("tokens", None):
        result["tokens_per_s"] = tokens / min(seconds)
    if clock.is_cuda:
        free, total = torch.cuda.mem_get_info()
        result["peak_bytes"] = torch.cuda.max_memory_allocated()
        result["reserved_bytes"] = torch.cuda.max_memory_reserved()
        result["in_use_bytes"] = total - free
    print(json.dumps({"peer": f"torch {torch.__version__}"} | result), flush=True)


def fresh(device):
    torch.manual_seed(1)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def train_step(args, device, dropout, attention):
    fresh(device)
    with device:
        model = Encoder(args.shape, dropout, attention).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.01, fused=True)
    positives = torch.arange(args.texts // 2, device=device)

    def work():
        ids = torch.randint(SHAPES[args.shape][4], (args.texts, LENGTH), device=device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            queries, passages = model(ids).chunk(2)
        loss = F.cross_entropy(queries @ passages.T / 0.05, positives)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    shape = f"{args.shape} {args.texts} texts" + (" dropout" if dropout else "")
    result = {"op": "train_step", "dtype": "bf16", "shape": shape, "attention": attention}
    measure(args, device, work, result | {"tokens": args.texts * LENGTH})


def info_nce(args, device):
    fresh(device)
    n, size = args.n, args.size
    sides = [F.normalize(torch.randn(n, size, device=device), dim=1).requires_grad_() for _ in range(2)]
    labels, rows = torch.arange(n, device=device), n if n <= MOST_QUERIES_AT_ONCE else ROWS

    def work():
        queries, passages = sides
        queries.grad = passages.grad = None
        for start in range(0, n, rows):
            chunk = slice(start, start + rows)
            with torch.autocast(device.type, dtype=torch.bfloat16):
                scores = queries[chunk] @ passages.T
            loss = F.cross_entropy(scores.float() / 0.02, labels[chunk], reduction="sum") / n
            loss.backward()

    how = "cross_entropy" if rows == n else f"cross_entropy of {rows} rows at a time"
    measure(args, device, work, {"op": "info_nce", "dtype": "bf16", "shape": f"one way/{n}x{n}x{size}", "loss": how})


def info(device):
    result = {"torch": torch.__version__, "cuda": torch.version.cuda, "flash_attn": None}
    if flash_attn_varlen_qkvpacked_func:
        import flash_attn

        result["flash_attn"] = flash_attn.__version__
    if device.type == "cuda":
        result["device"] = torch.cuda.get_device_name()
    print(json.dumps(result))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--budget", type=float, default=1.0, metavar="SECONDS", help="time for a measurement")
    parser.add_argument("--warm-up", type=int, default=3, metavar="RUNS")
    parser.add_argument("--least-runs", type=int, default=3, metavar="RUNS")
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("info")
    steps = what.add_parser("train_step")
    steps.add_argument("shape", choices=SHAPES)
    steps.add_argument("texts", type=int, nargs="?", default=64)
    losses = what.add_parser("info_nce")
    losses.add_argument("n", type=int)
    losses.add_argument("size", type=int, nargs="?", default=768)
    args = parser.parse_args()
    device = torch.device(args.device)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.exit(3, f"PyTorch {torch.__version__} finds no CUDA device\n")
    if args.what == "info":
        return info(device)
    if args.what == "info_nce":
        return info_nce(args, device)
    # The package's kernels are CUDA's.
    is_flash = flash_attn_varlen_qkvpacked_func and device.type == "cuda"
    attentions = ["sdpa"] + (["flash_attn varlen"] if is_flash else [])
    for attention in attentions:
        for dropout in (0.0, 0.1):
            train_step(args, device, dropout, attention)


if __name__ == "__main__":
    main()
