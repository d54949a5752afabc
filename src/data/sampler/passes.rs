//! The order of a set's groups: pass after pass, each group once a pass and at most once in a batch.

use super::permutation::Permutation;
use crate::random::hash;

/// The endless sequence of passes over `0..n`, cut into batches.
///
/// Pass `p` takes the places `p * n .. (p + 1) * n` of the sequence, batch `k` the places `k * batch_size .. (k + 1) *
/// batch_size`. A batch may thus begin in one pass and end in the next. To keep it free of repeats, the first
/// `batch_size` items of the next pass are reordered: those that the batch already took from the end of the previous
/// pass go behind the others. If the batch took `taken` items from the old pass, at most that many of the `batch_size`
/// go behind, so the `batch_size - taken` that the batch still needs are all new to it. The end of a pass is never
/// reordered (for `n >= 2 * batch_size` its last `batch_size` items are not among the first), so the next pass can tell
/// what was taken without looking further back: O(batch size), at any depth.
///
/// With fewer than two batches of groups there is no room for that, and little choice of order either: every pass then
/// has the same order, in which any `batch_size` neighbours (the end joined to the start) are different.
///
/// If batches are not of one size ([`Passes::of_stretches`]), it is unknown how many items of the old pass the batch
/// took that goes on into the next one. The reordering then assumes the most: of the first `2 * batch_size` items of
/// the next pass, those among the last `batch_size` of the old pass go behind the others.
pub struct Passes {
    n: u64,
    batch_size: u64,
    key: u64,
    /// Whether every batch has `batch_size` items.
    is_even: bool,
}

impl Passes {
    /// Passes over `0..n` in batches of `batch_size <= n`, in the orders that belong to `key`.
    pub fn new(n: u64, batch_size: u64, key: u64) -> Self {
        assert!(0 < batch_size && batch_size <= n, "a batch of {batch_size} from {n} groups");
        Passes { n, batch_size, key, is_even: true }
    }

    /// Passes over `0..n` for batches of at most `longest <= n` items; see [`Passes::stretch`].
    pub fn of_stretches(n: u64, longest: u64, key: u64) -> Self {
        Passes { is_even: false, ..Passes::new(n, longest, key) }
    }

    /// The items of one batch.
    pub fn batch(&self, number: u64) -> Vec<u64> {
        self.stretch(u128::from(number) * u128::from(self.batch_size), self.batch_size)
    }

    /// `len <= batch_size` items of the sequence from place `start` on: all different.
    pub fn stretch(&self, start: u128, len: u64) -> Vec<u64> {
        let offset = (start % u128::from(self.n)) as u64;
        let here = len.min(self.n - offset);
        if self.n < self.batch_size + self.opening_len() {
            let order = self.order(0);
            return (offset..offset + here).chain(0..len - here).map(|place| order.item(place)).collect();
        }
        // Less than the number of batches: it fits.
        let pass = (start / u128::from(self.n)) as u64;
        let mut items = self.items(pass, offset, here);
        if here < len {
            items.extend(self.items(pass + 1, 0, len - here));
        }
        items
    }

    /// Number of items at the start of a pass that may be reordered.
    fn opening_len(&self) -> u64 {
        if self.is_even { self.batch_size } else { 2 * self.batch_size }
    }

    fn order(&self, pass: u64) -> Permutation {
        Permutation::new(self.n, hash(&[self.key, pass]))
    }

    /// `len <= batch_size` items of a pass, from place `from`.
    fn items(&self, pass: u64, from: u64, len: u64) -> Vec<u64> {
        let order = self.order(pass);
        let opening = if from < self.opening_len() { self.opening(pass, &order) } else { Vec::new() };
        (from..from + len)
            .map(|place| opening.get(place as usize).copied().unwrap_or_else(|| order.item(place)))
            .collect()
    }

    /// The first items of a pass, with those last that its first batch already took from the previous pass.
    fn opening(&self, pass: u64, order: &Permutation) -> Vec<u64> {
        let items = (0..self.opening_len()).map(|place| order.item(place));
        let taken = match self.is_even {
            true => (u128::from(pass) * u128::from(self.n) % u128::from(self.batch_size)) as u64,
            false => self.batch_size,
        };
        if taken == 0 || pass == 0 {
            return items.collect();
        }
        let before = self.order(pass - 1);
        let (mut new, old): (Vec<u64>, Vec<u64>) = items.partition(|&item| before.place(item) < self.n - taken);
        new.extend(old);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every shape of boundary: each pass holds each item once, no batch holds one twice.
    #[test]
    fn each_item_once_a_pass_and_never_twice_in_a_batch() {
        for batch_size in [1, 2, 3, 5, 8, 13] {
            for n in batch_size..=5 * batch_size + 1 {
                let passes = Passes::new(n, batch_size, n + 1000 * batch_size);
                let mut sequence = Vec::new();
                // batch_size passes: every possible number of items taken over.
                for number in 0..n {
                    let batch = passes.batch(number);
                    let distinct: std::collections::HashSet<_> = batch.iter().collect();
                    assert_eq!(distinct.len() as u64, batch_size, "n = {n}, batch {number}: {batch:?}");
                    sequence.extend(batch);
                }
                for (p, pass) in sequence.chunks_exact(n as usize).enumerate() {
                    let mut sorted = pass.to_vec();
                    sorted.sort_unstable();
                    assert!(sorted.iter().copied().eq(0..n), "n = {n}, batch_size = {batch_size}, pass {p}: {pass:?}");
                }
            }
        }
    }

    #[test]
    fn order_changes_from_pass_to_pass() {
        let passes = Passes::new(100, 10, 1);
        let pass = |p: u64| -> Vec<u64> { (p * 10..(p + 1) * 10).flat_map(|k| passes.batch(k)).collect() };
        let first = pass(0);
        for p in 1..20 {
            let fixed = first.iter().zip(pass(p)).filter(|(a, b)| **a == *b).count();
            // One item in expectation keeps its place; 8 or more has probability 1e-5.
            assert!(fixed < 8, "pass {p} keeps {fixed} of 100 places");
        }
    }

    /// Any neighbours are different, wherever a batch of uneven length may begin and end.
    #[test]
    fn stretches_hold_nothing_twice() {
        for longest in [1u64, 2, 3, 5, 8] {
            for n in longest..=6 * longest + 1 {
                let passes = Passes::of_stretches(n, longest, n + 1000 * longest);
                let sequence: Vec<u64> = (0..20 * n).map(|place| passes.stretch(u128::from(place), 1)[0]).collect();
                for (p, pass) in sequence.chunks_exact(n as usize).enumerate() {
                    let mut sorted = pass.to_vec();
                    sorted.sort_unstable();
                    assert!(sorted.iter().copied().eq(0..n), "n = {n}, longest = {longest}, pass {p}: {pass:?}");
                }
                for (start, stretch) in sequence.windows(longest as usize).enumerate() {
                    assert_eq!(passes.stretch(start as u128, longest), stretch);
                    let distinct: std::collections::HashSet<_> = stretch.iter().collect();
                    assert_eq!(distinct.len() as u64, longest, "n = {n}, from {start}: {stretch:?}");
                }
            }
        }
    }

    #[test]
    fn far_batches_do_not_overflow() {
        let batch = Passes::new(100_000_007, 1 << 17, 1).batch(u64::MAX);
        assert_eq!(batch.len(), 1 << 17);
    }
}
