//! Prepares the next batches on a thread of its own while the present one trains.

use super::batch::{Batch, NegativeRules};
use super::catalog::TextSource;
use super::sampler::SampledBatch;
use crate::ahead::Ahead;
use crate::{Result, trace};
use std::ops::Range;
use std::sync::Arc;

/// Batches that may wait in the queue: enough to bridge a slow one, and little memory.
const AHEAD: usize = 4;

/// The batches of a range of steps, in order; a batch depends on its step alone. The first error is the last item.
pub type Loader = Ahead<Result<Batch>>;

/// Starts to make the batches of `steps`, each from what `draw` samples for it; see [`Batch::pack`] for `rules`.
///
/// # Errors
/// If the system refuses a thread.
pub fn load(
    draw: impl Fn(u64) -> SampledBatch + Send + 'static,
    source: Arc<dyn TextSource>,
    steps: Range<u64>,
    rules: NegativeRules,
) -> Result<Loader> {
    let mut has_failed = false;
    let batches = steps.map_while(move |step| {
        if has_failed {
            return None;
        }
        let _range = trace::phase("pack");
        let batch = Batch::pack(step, &draw(step), &*source, rules);
        has_failed = batch.is_err();
        Some(batch)
    });
    Ahead::start("hbt-loader", AHEAD, batches)
}
