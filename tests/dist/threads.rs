//! A world whose ranks are threads.

use hbt::Result;
use hbt::dist::wire::{MOST_BYTES, Wire};
use hbt::dist::{Launcher, Peers, Place};
use std::sync::{Arc, Barrier, Mutex};

/// What each rank has sent, for each rank.
struct Hub {
    barrier: Barrier,
    sent: Mutex<Vec<Vec<Vec<u8>>>>,
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
        self.hub.barrier.wait();
        let received = self.hub.sent.lock().unwrap().iter().map(|of| of[self.rank].clone()).collect();
        self.hub.barrier.wait();
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
        self.hub.barrier.wait();
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
pub fn world<T: Send + 'static>(size: usize, f: impl Fn(Peers) -> T + Copy + Send + 'static) -> Vec<T> {
    let hub = Arc::new(Hub { barrier: Barrier::new(size), sent: Mutex::new(vec![Vec::new(); size]) });
    let ranks: Vec<_> = (0..size)
        .map(|rank| {
            let wire = Box::new(Thread { rank, hub: hub.clone() });
            let place = Place { rank, size, local_rank: rank, local_size: size, launcher: Launcher::Own };
            std::thread::spawn(move || f(Peers::over(place, wire, Arc::default())))
        })
        .collect();
    ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
}
