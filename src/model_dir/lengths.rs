//! At how many tokens a directory says that texts are cut.

use crate::Result;
use crate::json::{Fields, read_optional_object};
use crate::model::ModelConfig;
use serde_json::Value;
use std::path::Path;

/// Names `sentence_bert_config.json` has had; sentence-transformers looks for all of them.
const TRANSFORMER_CONFIGS: [&str; 3] =
    ["sentence_bert_config.json", "sentence_roberta_config.json", "sentence_xlm-roberta_config.json"];

/// Tokens at which sentence-transformers cuts texts, special tokens included.
pub(super) struct Lengths {
    pub(super) any: usize,
    pub(super) query: usize,
    pub(super) passage: usize,
}

impl Lengths {
    /// As sentence-transformers takes them (6.2, `base/modules/transformer.py`): the tokenizer's `model_max_length` and the
    /// positions, the fewer of the two, unless `sentence_bert_config.json` says `max_seq_length` or, before that,
    /// `model_max_length` among the arguments of the tokenizer. Queries and passages may have their own.
    /// Never more than there are positions: sentence-transformers fails at a longer text.
    pub(super) fn read(directory: &Path, tokenizer: &Path, config: &ModelConfig) -> Result<Lengths> {
        let positions = config.max_seq_len();
        let path = &directory.join("tokenizer_config.json");
        let said = read_optional_object(path)?.and_then(|map| map.get("model_max_length").and_then(Value::as_u64));
        // transformers writes 1000000000000000019884624838656, which is no u64, where it does not know.
        let any = said.filter(|&n| n > 0).map_or(positions, |n| usize::try_from(n).unwrap_or(positions).min(positions));
        for name in TRANSFORMER_CONFIGS {
            let path = &directory.join(name);
            let Some(map) = read_optional_object(path)? else { continue };
            let fields = Fields::new(path, &map);
            check_transformer_config(&fields, tokenizer)?;
            let length = |fields: &Fields, key: &str, otherwise: usize| {
                fields.size(key, Some(otherwise)).map(|length| length.min(positions))
            };
            let mut any = length(&fields, "max_seq_length", any)?;
            for key in ["processor_kwargs", "tokenizer_args"] {
                if let Some(Value::Object(arguments)) = fields.get(key) {
                    any = length(&Fields::new(path, arguments), "model_max_length", any)?;
                }
            }
            let [query, passage] = ["query_length", "document_length"].map(|key| length(&fields, key, any));
            return Ok(Lengths { any, query: query?, passage: passage? });
        }
        Ok(Lengths { any, query: any, passage: any })
    }
}

/// Refuses what hbt would compute otherwise.
fn check_transformer_config(fields: &Fields, tokenizer: &Path) -> Result<()> {
    if let Some(task) = fields.string("transformer_task")?.filter(|&task| task != "feature-extraction") {
        return Err(fields.error(format!("transformer_task {task:?} is not supported, only \"feature-extraction\"")));
    }
    if fields.boolean("do_lower_case")? == Some(true) && !lowercases(tokenizer)? {
        return Err(fields.error(
            "do_lower_case is true, but tokenizer.json does not lowercase; hbt leaves texts as they are: set it to false",
        ));
    }
    Ok(())
}

/// Whether the tokenizer's own normalizer lowercases, so that doing it before changes nothing.
fn lowercases(tokenizer: &Path) -> Result<bool> {
    let Some(map) = read_optional_object(tokenizer)? else { return Ok(false) };
    let Some(normalizer) = map.get("normalizer") else { return Ok(false) };
    let parts = match normalizer.get("normalizers").and_then(Value::as_array) {
        Some(sequence) => sequence.as_slice(),
        None => std::slice::from_ref(normalizer),
    };
    Ok(parts.iter().any(|part| part["type"] == "Lowercase" || part["lowercase"] == true))
}
