//! Work done ahead of its consumer, on a thread of its own.

use crate::{Error, Result};
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

/// The items of an iterator, in order, computed on a thread before they are asked for.
///
/// Dropping it stops the thread. A panic on the thread is raised again in the caller, at the item that could not be
/// made.
pub struct Ahead<T> {
    /// `None` only while being dropped: the closed channel stops the thread.
    items: Option<Receiver<T>>,
    worker: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Ahead<T> {
    /// Starts to make `items` on a thread called `name`. At most `depth` items wait to be taken.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(name: &str, depth: usize, items: impl Iterator<Item = T> + Send + 'static) -> Result<Self> {
        let (sender, receiver) = sync_channel(depth);
        let work = move || {
            for item in items {
                // A send fails when the receiver is gone.
                if sender.send(item).is_err() {
                    return;
                }
            }
        };
        let worker = thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .map_err(|e| Error::other(format!("cannot start the thread {name}: {e}; raise the thread limit")))?;
        Ok(Ahead { items: Some(receiver), worker: Some(worker) })
    }
}

impl<T> Iterator for Ahead<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if let Ok(item) = self.items.as_ref()?.recv() {
            return Some(item);
        }
        // The thread has ended: after the last item, or by a panic.
        if let Err(panic) = self.worker.take()?.join() {
            resume_unwind(panic);
        }
        None
    }
}

impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        drop(self.items.take());
        if let Some(worker) = self.worker.take() {
            // A panic here concerns an item that nobody asked for.
            let _ = worker.join();
        }
    }
}
