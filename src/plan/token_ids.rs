//! The token ids that a run uses, and the growth of their number with the length of the run.

/// Exponent of Heaps' law, about, where it cannot be estimated.
const USUAL_POWER: f64 = 0.5;

/// The token ids of the batches seen so far.
#[derive(Clone)]
pub(super) struct TokenIds {
    /// Number of the last batch, counted from 1, with each id; 0 if there was none.
    last_batch: Vec<u32>,
    n_batches: u32,
    n_seen: usize,
    /// Number of different ids in the first half of the batches.
    n_at_half: usize,
    /// Share of the run's batches that were sampled.
    share_seen: f64,
}

impl TokenIds {
    pub fn new(vocab_size: usize) -> Self {
        TokenIds { last_batch: vec![0; vocab_size], n_batches: 0, n_seen: 0, n_at_half: 0, share_seen: 1.0 }
    }

    /// Adds a batch; returns the number of its different ids. Ids outside of the vocabulary are skipped: the run
    /// reports them.
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

    /// Factor by which the number of different ids grows in a text that is `longer` times as long: a power of `longer`
    /// (Heaps' law).
    pub fn growth(&self, longer: f64) -> f64 {
        let power = if self.n_at_half > 0 { (self.n_seen as f64 / self.n_at_half as f64).log2() } else { USUAL_POWER };
        longer.powf(power.clamp(0.0, 1.0))
    }

    /// Number of different ids in a text that is `longer` times as long as one with `n_ids`, at most those of the vocabulary.
    pub fn grown(&self, n_ids: usize, longer: f64) -> usize {
        ((n_ids as f64 * self.growth(longer)) as usize).min(self.last_batch.len())
    }

    /// Notes that half of the batches have been added.
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
    use super::TokenIds;

    #[test]
    fn pages_are_counted_once_and_grow_with_the_run() {
        let mut token_ids = TokenIds::new(1000);
        assert_eq!(token_ids.add(&[0, 1, 2, 1, 999]), 4);
        assert_eq!(token_ids.add(&[2, 3, 2000]), 2, "a new batch counts anew; ids that are not there do not count");
        assert_eq!(token_ids.n_seen, 5);
        // Rows of 1,000 bytes: rows 0 to 3 are in the first page of 4,000, row 999 in the last one.
        assert_eq!(token_ids.bytes(1000, 4000), 8000);
        assert_eq!(token_ids.bytes(1000, 1000), 5000);
        // Rows 0 to 3 take the first 12,000 bytes, which are three pages; row 999 begins in one page and ends in the next.
        assert_eq!(token_ids.bytes(3000, 4096), (3 + 2) * 4096);
        // Half of the text has half of the ids: the number grows with the length of the run, up to all ids.
        (token_ids.n_at_half, token_ids.n_seen, token_ids.share_seen) = (2, 4, 0.1);
        assert_eq!(token_ids.bytes(1000, 1000), 50_000);
        token_ids.share_seen = 0.001;
        assert_eq!(token_ids.bytes(1000, 1000), 1_000_000);
        assert_eq!((token_ids.grown(300, 2.0), token_ids.grown(300, 16.0)), (600, 1000), "up to all ids");
        (token_ids.n_at_half, token_ids.n_seen) = (4, 4);
        assert_eq!(token_ids.bytes(1000, 1000), 5000, "what has stopped to grow stays");
    }
}
