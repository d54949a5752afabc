//! The tokenizer's files of a saved model: `tokenizer.json` as it is, and the two that AutoTokenizer reads beside it.

use super::Carried;
use super::save::write_json;
use crate::{Result, files};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;

/// The keys under which both files name special tokens, with the names BERT and the RoBERTa family use.
const SPECIAL_TOKENS: [(&str, [&str; 2]); 7] = [
    ("bos_token", ["<s>", ""]),
    ("eos_token", ["</s>", ""]),
    ("cls_token", ["[CLS]", "<s>"]),
    ("sep_token", ["[SEP]", "</s>"]),
    ("unk_token", ["[UNK]", "<unk>"]),
    ("pad_token", ["[PAD]", "<pad>"]),
    ("mask_token", ["[MASK]", "<mask>"]),
];

/// Writes `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json` into `directory`.
pub(super) fn write(carried: &Carried, max_seq_length: usize, directory: &Path) -> Result<()> {
    files::write_file(&directory.join("tokenizer.json"), |file| file.write_all(&carried.tokenizer))?;
    let config = match carried.tokenizer_config.clone() {
        Some(config) => for_every_release(config),
        None => minimal_config(&carried.tokenizer, max_seq_length),
    };
    let map = match carried.special_tokens_map.clone() {
        Some(map) => map,
        // transformers 5 writes none: the same keys are in tokenizer_config.json.
        None => {
            let special = |(key, _): &(&str, _)| Some(((*key).to_owned(), config.get(*key)?.clone()));
            SPECIAL_TOKENS.iter().filter_map(special).collect()
        }
    };
    write_json(&directory.join("tokenizer_config.json"), &Value::Object(config))?;
    write_json(&directory.join("special_tokens_map.json"), &Value::Object(map))
}

/// transformers 5 writes a class name and a list that transformers 4 cannot read; both read what this makes of it.
fn for_every_release(mut config: Map<String, Value>) -> Map<String, Value> {
    if config.get("tokenizer_class").is_some_and(|class| class == "TokenizersBackend") {
        config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    }
    if config.get("extra_special_tokens").is_some_and(Value::is_array)
        && let Some(tokens) = config.shift_remove("extra_special_tokens")
    {
        config.insert("additional_special_tokens".into(), tokens);
    }
    config
}

/// For a directory that has `tokenizer.json` alone: the special tokens by their usual names, as far as it has them.
fn minimal_config(tokenizer: &[u8], max_seq_length: usize) -> Map<String, Value> {
    let tokenizer: Value = serde_json::from_slice(tokenizer).unwrap_or_default();
    let added = tokenizer.get("added_tokens").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let has = |token: &str| added.iter().any(|entry| entry["content"] == token);
    let mut config = Map::new();
    config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    config.insert("model_max_length".into(), json!(max_seq_length));
    for (key, names) in SPECIAL_TOKENS {
        if let Some(name) = names.into_iter().find(|name| has(name)) {
            config.insert(key.into(), name.into());
        }
    }
    config
}
