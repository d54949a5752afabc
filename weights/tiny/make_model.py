#!/usr/bin/env python3
"""Makes the built-in encoder: a tokenizer, a configuration, and weights trained by hbt itself.

    pip install tokenizers==0.23.1
    python3 make_model.py tokenizer                  # tokenizer.json, config.json and the module files
    hbt train --model . --data data --from-scratch --out RUN --set split=train --set eval_task=none \\
        --set mode=mixed_monolingual --set batch_size=64 --set steps=300 --set learning_rate=1e-3 \\
        --set temperature=0.05 --set dropout=0
    python3 make_model.py weights RUN/last           # model.safetensors, in 16 bits

The tokenizer (Unigram, 6,000 pieces) and the weights come from the training part of the data alone. The weights are
trained on same-language pairs only, which is the starting point that hybrid batches improve on.
"""
import argparse
import json
import struct
from pathlib import Path

HERE = Path(__file__).resolve().parent
VOCAB, HIDDEN, LAYERS, HEADS, FEED_FORWARD, MAX_LEN = 6000, 256, 1, 8, 512, 128
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def write(name, value):
    path = HERE / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def texts():
    for line in open(HERE / "data/train.jsonl", encoding="utf-8"):
        group = json.loads(line)
        yield from group["query"].values()
        yield from group["positive"].values()


def make_tokenizer():
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=VOCAB, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", ids["<s>"]), ("</s>", ids["</s>"])])
    tokenizer.save(str(HERE / "tokenizer.json"))
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MAX_LEN, **names})
    write("special_tokens_map.json", names)
    write("config.json", {
        "architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta", "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "intermediate_size": FEED_FORWARD, "hidden_act": "gelu", "max_position_embeddings": MAX_LEN + 2,
        "type_vocab_size": 1, "layer_norm_eps": 1e-5, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02, "position_embedding_type": "absolute", "pad_token_id": ids["<pad>"],
        "bos_token_id": ids["<s>"], "eos_token_id": ids["</s>"], "torch_dtype": "float16"})
    module = "sentence_transformers.models."
    write("modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": module + "Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": module + "Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": module + "Normalize"}])
    modes = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    write("1_Pooling/config.json", {
        "word_embedding_dimension": HIDDEN, **{f"pooling_mode_{m}": m == "mean_tokens" for m in modes},
        "include_prompt": True})
    write("sentence_bert_config.json", {"max_seq_length": MAX_LEN, "do_lower_case": False})
    write("config_sentence_transformers.json", {
        "prompts": {"query": "query: ", "document": "passage: ", "passage": "passage: "}, "default_prompt_name": None,
        "similarity_fn_name": "cosine"})


def make_weights(source):
    """f32 to f16, tensor by tensor."""
    data = (source / "model.safetensors").read_bytes()
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:8 + size])
    metadata, body, at = header.pop("__metadata__"), [], 0
    for entry in sorted(header.values(), key=lambda e: e["data_offsets"][0]):
        begin, end = entry["data_offsets"]
        n = (end - begin) // 4
        body.append(struct.pack(f"<{n}e", *struct.unpack_from(f"<{n}f", data, 8 + size + begin)))
        entry.update(dtype="F16", data_offsets=[at, at + 2 * n])
        at += 2 * n
    head = json.dumps({"__metadata__": metadata, **header}).encode()
    head += b" " * (-len(head) % 8)
    (HERE / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + b"".join(body))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tokenizer")
    commands.add_parser("weights").add_argument("source", type=Path)
    args = parser.parse_args()
    make_tokenizer() if args.command == "tokenizer" else make_weights(args.source)
