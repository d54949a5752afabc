//! What the configuration says about the loss.

use crate::config::Config;
use crate::loss::LossConfig;
use crate::{Error, Result};

/// The loss of embeddings of size `embedding_size`.
///
/// # Errors
/// When `matryoshka_dims` has more dimensions than that.
pub(super) fn loss_config(config: &Config, embedding_size: usize) -> Result<LossConfig> {
    let dims = config.matryoshka_dims.as_deref().unwrap_or_default();
    if let Some(d) = dims.iter().find(|&&d| d > embedding_size) {
        let message = format!("has {d}, but the model's embeddings have {embedding_size} dimensions");
        return Err(Error::config("matryoshka_dims", message));
    }
    let weights = config.matryoshka_weights.as_deref().unwrap_or_default().iter().copied();
    let weights = weights.chain(std::iter::repeat(1.0)).map(|weight| weight as f32);
    let mut dimensions: Vec<(usize, f32)> = dims.iter().copied().zip(weights).collect();
    dimensions.sort_unstable_by_key(|&(d, _)| std::cmp::Reverse(d));
    Ok(LossConfig {
        temperature: config.temperature as f32,
        symmetric: config.symmetric,
        margin: config.margin as f32,
        in_batch_negatives: config.in_batch_negatives,
        query_negatives: config.query_negatives,
        passage_negatives: config.passage_negatives,
        false_negative_margin: config.false_negative_margin.map(|margin| margin as f32),
        dimensions,
    })
}
