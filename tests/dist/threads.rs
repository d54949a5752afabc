//! A world whose ranks are threads. One of them runs at a time, until it waits for the others: so they may share a device that
//! is made for one thread.

use hbt::Result;
use hbt::dist::wire::{MOST_BYTES, Wire};
use hbt::dist::{Launcher, Peers, Place};
use std::sync::{Arc, Barrier, Condvar, Mutex};

/// What each rank has sent, for each rank.
struct Hub {
    barrier: Barrier,
    sent: Mutex<Vec<Vec<Vec<u8>>>>,
    /// Whether a rank runs.
    is_taken: Mutex<bool>,
    is_free: Condvar,
}

impl Hub {
    fn take_turn(&self) {
        let mut is_taken = self.is_taken.lock().unwrap();
        while *is_taken {
            is_taken = self.is_free.wait(is_taken).unwrap();
        }
        *is_taken = true;
    }

    fn end_turn(&self) {
        *self.is_taken.lock().unwrap() = false;
        self.is_free.notify_one();
    }

    /// Waits for all ranks.
    fn meet(&self) {
        self.end_turn();
        self.barrier.wait();
        self.take_turn();
    }
}

struct Thread {
    rank: usize,
    hub: Arc<Hub>,
}

impl Thread {
    /// Sends each rank its message, and returns what each has for this one.
    fn exchange(&self, messages: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        assert!(messages.iter().map(Vec::len).sum::<usize>() <= MOST_BYTES);
        self.hub.sent.lock().unwrap()[self.rank] = messages;
        self.hub.meet();
        let received = self.hub.sent.lock().unwrap().iter().map(|of| of[self.rank].clone()).collect();
        self.hub.meet();
        received
    }
}

/// Cuts `bytes` into parts of these lengths.
fn cut(mut bytes: &[u8], lens: &[usize]) -> Vec<Vec<u8>> {
    let parts = lens.iter().map(|&len| bytes.split_off(..len).unwrap().to_vec()).collect();
    assert!(bytes.is_empty(), "parts are all there is");
    parts
}

/// Writes messages of these lengths end to end.
fn join(messages: Vec<Vec<u8>>, lens: &[usize], bytes: &mut [u8]) {
    assert_eq!(messages.iter().map(Vec::len).collect::<Vec<_>>(), lens, "as long as was expected");
    bytes.copy_from_slice(&messages.concat());
}

impl Wire for Thread {
    fn all_to_all(&mut self, send: &[u8], to: &[usize], received: &mut [u8], from: &[usize]) -> Result<()> {
        join(self.exchange(cut(send, to)), from, received);
        Ok(())
    }

    fn all_gather(&mut self, mine: &[u8], received: &mut [u8], lens: &[usize]) -> Result<()> {
        join(self.exchange(vec![mine.to_vec(); lens.len()]), lens, received);
        Ok(())
    }

    fn broadcast(&mut self, root: usize, bytes: &mut [u8]) -> Result<()> {
        let size = self.hub.sent.lock().unwrap().len();
        let received = self.exchange(vec![bytes.to_vec(); size]);
        bytes.copy_from_slice(&received[root]);
        Ok(())
    }

    fn barrier(&mut self) -> Result<()> {
        self.hub.meet();
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }

    fn abort(&mut self, status: i32) -> ! {
        std::process::exit(status)
    }
}

/// What `f` returns on each of `size` ranks.
pub fn world<T: Send>(size: usize, f: impl Fn(Peers) -> T + Sync) -> Vec<T> {
    world_over(size, |place, wire| Peers::over(place, wire, Arc::default()), f)
}

/// [`world`], of which each rank's `peers` are made over a wire.
pub fn world_over<T: Send>(
    size: usize,
    peers: impl Fn(Place, Box<dyn Wire>) -> Peers + Sync,
    f: impl Fn(Peers) -> T + Sync,
) -> Vec<T> {
    let sent = Mutex::new(vec![Vec::new(); size]);
    let hub = Arc::new(Hub { barrier: Barrier::new(size), sent, is_taken: Mutex::new(false), is_free: Condvar::new() });
    let (f, peers) = (&f, &peers);
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..size)
            .map(|rank| {
                let wire = Box::new(Thread { rank, hub: hub.clone() });
                let place = Place { rank, size, local_rank: rank, local_size: size, launcher: Launcher::Own };
                let hub = hub.clone();
                scope.spawn(move || {
                    hub.take_turn();
                    let result = f(peers(place, wire));
                    hub.end_turn();
                    result
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}
