//! The token ids that a run uses, and how many more there are the longer it is.

/// What the power of Heaps' law is about, where it cannot be told.
const USUAL_POWER: f64 = 0.5;

/// Which token ids the run uses.
#[derive(Clone)]
pub(super) struct Words {
    /// The last batch, counted from 1, that had each id; 0: none.
    last_batch: Vec<u32>,
    n_batches: u32,
    n_seen: usize,
    /// Ids of the first half of the batches.
    n_at_half: usize,
    /// Share of the run's batches that were looked at.
    share_seen: f64,
}

impl Words {
    pub fn new(vocab_size: usize) -> Self {
        Words { last_batch: vec![0; vocab_size], n_batches: 0, n_seen: 0, n_at_half: 0, share_seen: 1.0 }
    }

    /// Adds a batch; returns how many different ids it has. Ids that the model does not have are an error of the run.
    pub fn add(&mut self, ids: &[i32]) -> usize {
        self.n_batches += 1;
        let mut n_ids = 0;
        for &id in ids {
            let Some(last) = self.last_batch.get_mut(id as usize) else { continue };
            self.n_seen += usize::from(*last == 0);
            n_ids += usize::from(*last != self.n_batches);
            *last = self.n_batches;
        }
        n_ids
    }

    /// Bytes of a table with a row of `row_bytes` for every id that have been written to by the end of the run.
    pub fn bytes(&self, row_bytes: usize, page_bytes: usize) -> u64 {
        let (mut n_pages, mut next_page) = (0, 0);
        for row in (0..self.last_batch.len()).filter(|&row| self.last_batch[row] > 0) {
            let first = (row * row_bytes / page_bytes).max(next_page);
            next_page = ((row + 1) * row_bytes).div_ceil(page_bytes);
            n_pages += next_page.saturating_sub(first);
        }
        let growth = self.growth(1.0 / self.share_seen);
        let table = (self.last_batch.len() * row_bytes) as f64;
        ((n_pages * page_bytes) as f64 * growth).min(table) as u64
    }

    /// How many times as many different ids a text has that is `longer` times as long: a power of that (Heaps' law).
    pub fn growth(&self, longer: f64) -> f64 {
        let power = if self.n_at_half > 0 { (self.n_seen as f64 / self.n_at_half as f64).log2() } else { USUAL_POWER };
        longer.powf(power.clamp(0.0, 1.0))
    }

    /// Half of the batches have been added.
    pub fn is_half(&mut self) {
        self.n_at_half = self.n_seen;
    }

    /// All have been added, this share of the run's.
    pub fn is_whole(&mut self, share_seen: f64) {
        self.share_seen = share_seen;
    }
}

#[cfg(test)]
mod tests {
    use super::Words;

    #[test]
    fn pages_are_counted_once_and_grow_with_the_run() {
        let mut words = Words::new(1000);
        assert_eq!(words.add(&[0, 1, 2, 1, 999]), 4);
        assert_eq!(words.add(&[2, 3, 2000]), 2, "a new batch counts anew; ids that are not there do not count");
        assert_eq!(words.n_seen, 5);
        // Rows of 1,000 bytes: rows 0 to 3 are in the first page of 4,000, row 999 in the last one.
        assert_eq!(words.bytes(1000, 4000), 8000);
        assert_eq!(words.bytes(1000, 1000), 5000);
        // Rows 0 to 3 take the first 12,000 bytes, which are three pages; row 999 begins in one page and ends in the next.
        assert_eq!(words.bytes(3000, 4096), (3 + 2) * 4096);
        // Half as many ids in half of the text: as many times more as the run is longer, but no more than there are.
        (words.n_at_half, words.n_seen, words.share_seen) = (2, 4, 0.1);
        assert_eq!(words.bytes(1000, 1000), 50_000);
        words.share_seen = 0.001;
        assert_eq!(words.bytes(1000, 1000), 1_000_000);
        (words.n_at_half, words.n_seen) = (4, 4);
        assert_eq!(words.bytes(1000, 1000), 5000, "what has stopped to grow stays");
    }
}
