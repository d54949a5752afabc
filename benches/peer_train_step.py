"""The training step of `cargo bench --bench train_step -- minilm-l6` in PyTorch, to compare the two in one run.

    pip install torch transformers
    python benches/peer_train_step.py           # beside hbt's f32
    python benches/peer_train_step.py --bf16    # beside hbt's bf16: autocast, f32 weights

The same shapes: 6 layers, hidden size 384, 12 heads, feed-forward size 1536, vocabulary 30,522; 32 queries and 32
passages of exactly 128 random tokens, so that PyTorch pads nothing; mean pooling, in-batch loss at temperature 0.05,
no dropout, clipping at 1, AdamW. Queries and passages are embedded in one batch, attention and optimizer are PyTorch's
fused ones. Prints one JSON line: tokens a second of the best step and of the mean step. On a machine with other work,
let the two programs take turns and compare the best.
"""

import argparse
import json
import os
import time

import torch
from torch.nn import functional as F
from transformers import BertConfig, BertModel

N_QUERIES, LENGTH, VOCABULARY, TEMPERATURE = 32, 128, 30_522, 0.05

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--bf16", action="store_true", help="autocast to bf16")
parser.add_argument("--steps", type=int, default=5, help="timed steps, after one that is not")
parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
args = parser.parse_args()

torch.manual_seed(1)
torch.set_num_threads(args.threads)
config = BertConfig(
    vocab_size=VOCABULARY,
    hidden_size=384,
    num_hidden_layers=6,
    num_attention_heads=12,
    intermediate_size=1536,
    max_position_embeddings=512,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
config._attn_implementation = "sdpa"
model = BertModel(config, add_pooling_layer=False).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.01, fused=True)
mask = torch.ones(2 * N_QUERIES, LENGTH, dtype=torch.long)
positives = torch.arange(N_QUERIES)


def step(ids):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
    embeddings = F.normalize(hidden.mean(1), dim=-1)
    scores = embeddings[:N_QUERIES] @ embeddings[N_QUERIES:].T
    loss = F.cross_entropy(scores / TEMPERATURE, positives)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


seconds = []
for _ in range(args.steps + 1):
    ids = torch.randint(VOCABULARY, (2 * N_QUERIES, LENGTH))
    start = time.perf_counter()
    step(ids)
    seconds.append(time.perf_counter() - start)
timed, tokens = seconds[1:], 2 * N_QUERIES * LENGTH
result = {
    "peer": f"torch {torch.__version__}",
    "dtype": "bf16" if args.bf16 else "f32",
    "threads": args.threads,
    "tokens_per_s_best": round(tokens / min(timed), 1),
    "tokens_per_s_mean": round(tokens * len(timed) / sum(timed), 1),
}
print(json.dumps(result))
