//! Suggestions for unknown words: the key or value that was probably meant.

use crate::choices::nearest;

/// Names of hbt's keys in other trainers.
const ELSEWHERE: &[(&str, &str)] = &[
    ("bf16", "precision"),
    ("dataset", "data"),
    ("early_stopping_patience", "patience"),
    ("fp16", "precision"),
    ("gc_chunk_size", "chunk_tokens"),
    ("gradient_checkpointing", "chunk_tokens"),
    ("grad_clip", "max_grad_norm"),
    ("kd_loss_type", "distillation"),
    ("knowledge_distillation", "distillation"),
    ("logging_steps", "log_steps"),
    ("lr", "learning_rate"),
    ("lr_scheduler_type", "lr_schedule"),
    ("max_steps", "steps"),
    ("metric_for_best_model", "best_metric"),
    ("mini_batch_num_tokens", "chunk_tokens"),
    ("mini_batch_size", "chunk_tokens"),
    ("model_name_or_path", "model"),
    ("num_epochs", "epochs"),
    ("num_train_epochs", "epochs"),
    ("output_dir", "out"),
    ("per_device_train_batch_size", "batch_size"),
    ("pooling_mode", "pooling"),
    ("query_instruction_for_retrieval", "query_prefix"),
    ("resume_from_checkpoint", "--resume"),
    ("save_total_limit", "keep_checkpoints"),
    ("scheduler", "lr_schedule"),
    ("sentence_pooling_method", "pooling"),
    ("tau", "temperature"),
    ("train_batch_size", "batch_size"),
    ("train_data", "data"),
    ("train_group_size", "negatives_per_query"),
    ("warmup_steps", "warmup_ratio"),
];

/// What other trainers have keys for and hbt does otherwise.
const OTHERWISE: &[(&str, &str)] = &[
    ("gradient_accumulation_steps", "raise batch_size instead: chunk_tokens bounds the memory that a batch takes"),
    ("report_to", "metrics.jsonl in the run directory has every step"),
    ("scale", "set temperature to 1 / scale"),
    ("seq_length", "set query_max_len and passage_max_len"),
    ("max_length", "set query_max_len and passage_max_len"),
    ("max_seq_length", "set query_max_len and passage_max_len"),
];

/// How hbt does what another trainer has a key of this name for.
pub(super) fn otherwise(word: &str) -> Option<&'static str> {
    let word = word.replace('-', "_");
    OTHERWISE.iter().find(|(theirs, _)| theirs.eq_ignore_ascii_case(&word)).map(|(_, how)| *how)
}

/// What to do instead of an option `--word` that does not exist: it may be a key.
pub fn instead_of_option(word: &str) -> Option<String> {
    if let Some(how) = otherwise(word) {
        return Some(how.to_owned());
    }
    let keys = super::KEYS.iter().map(|key| key.name);
    nearest_key(word, keys).map(|key| match key.starts_with('-') {
        true => format!("write {key}"),
        false => format!("it is a key: write --set {key}=VALUE"),
    })
}

/// The key that `word` most likely means.
pub(super) fn nearest_key<'a>(word: &str, keys: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let elsewhere = ELSEWHERE.iter().find(|(theirs, _)| theirs.eq_ignore_ascii_case(&word.replace('-', "_")));
    elsewhere.map(|(_, ours)| *ours).or_else(|| nearest(word, keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KEYS;

    #[test]
    fn other_names_lead_to_what_exists() {
        for (theirs, ours) in ELSEWHERE {
            assert!(*ours == "--resume" || KEYS.iter().any(|key| key.name == *ours), "{theirs} leads to {ours}");
            assert!(KEYS.iter().all(|key| key.name != *theirs), "{theirs} is a key itself");
        }
        for (theirs, how) in OTHERWISE {
            assert!(KEYS.iter().all(|key| key.name != *theirs), "{theirs} is a key itself");
            assert!(how.contains(".jsonl") || KEYS.iter().any(|key| how.contains(key.name)), "{how}");
        }
    }
}
