//! Prepares the coming batches on a thread of its own while the present one trains.

use super::batch::Batch;
use super::catalog::TextSource;
use super::sampler::Sampler;
use crate::{Error, Result, trace};
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

/// Batches that may wait in the queue: enough to ride out a slow one, little memory.
const AHEAD: usize = 4;

/// The batches of a range of steps, in order.
///
/// What a batch holds depends on its step alone; the thread only decides when it is made. Dropping the loader stops
/// the thread. A panic on the thread is raised again in the caller, at the batch that could not be made.
pub struct Loader {
    /// `None` once the loader is being dropped: a closed channel is what stops the thread.
    batches: Option<Receiver<Result<Batch>>>,
    worker: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts making the batches of `steps`; see [`Batch::pack`] for `max_negatives`.
    ///
    /// # Errors
    /// When the system does not grant a thread.
    pub fn start(
        sampler: Arc<Sampler>,
        source: Arc<dyn TextSource>,
        steps: Range<u64>,
        max_negatives: Option<usize>,
    ) -> Result<Self> {
        let (sender, batches) = sync_channel(AHEAD);
        let work = move || {
            for step in steps {
                let range = trace::phase("pack");
                let batch = Batch::pack(step, &sampler.batch(step), &*source, max_negatives);
                drop(range);
                let failed = batch.is_err();
                // A send fails when the loader was dropped: nobody wants the rest.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        let worker = thread::Builder::new()
            .name("hbt-loader".to_owned())
            .spawn(work)
            .map_err(|e| Error::other(format!("cannot start the loader's thread: {e}; raise the thread limit")))?;
        Ok(Loader { batches: Some(batches), worker: Some(worker) })
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    /// The next step's batch; `None` after the last step, and after an error.
    fn next(&mut self) -> Option<Result<Batch>> {
        let _range = trace::phase("feed");
        if let Ok(batch) = self.batches.as_ref()?.recv() {
            return Some(batch);
        }
        // The thread has ended: at the last step, after an error, or by a panic.
        if let Err(panic) = self.worker.take()?.join() {
            resume_unwind(panic);
        }
        None
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        drop(self.batches.take());
        if let Some(worker) = self.worker.take() {
            // A panic here is about a batch that nobody asked for.
            let _ = worker.join();
        }
    }
}
