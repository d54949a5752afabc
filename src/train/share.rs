//! The share of a batch that each of several ranks embeds.
//!
//! All ranks draw the same batch. Its sequences, longest first, are dealt there and back (0, 1, 2, 2, 1, 0, 0, 1, ...), so that
//! each rank has nearly as many tokens and nearly as many sequences as any other, and all chunks are full. A rank that has no
//! sequence at all takes part in everything else.

use crate::data::batch::Batch;
use crate::data::bounds::BatchBounds;

/// How the sequences of a batch are dealt out to ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deal {
    /// Number of this rank, from 0.
    pub rank: usize,
    /// Number of ranks, at least one.
    pub size: usize,
}

impl Deal {
    /// One rank, which has everything.
    pub const ALONE: Deal = Deal { rank: 0, size: 1 };

    /// The rank that has the sequence at `place`.
    fn rank_of(self, place: usize) -> usize {
        let (round, at) = (place / self.size, place % self.size);
        if round.is_multiple_of(2) { at } else { self.size - 1 - at }
    }

    /// The places of this rank's sequences among `n`, ascending.
    pub fn places(self, n: usize) -> impl Iterator<Item = usize> {
        (0..n).filter(move |&place| self.rank_of(place) == self.rank)
    }

    /// How many of `n` sequences each rank has.
    pub fn counts(self, n: usize) -> Vec<usize> {
        let mut counts = vec![n / self.size; self.size];
        (n - n % self.size..n).for_each(|place| counts[self.rank_of(place)] += 1);
        counts
    }

    /// Where the rows of each rank begin, if those of all are end to end in the order of ranks.
    fn starts(self, n: usize) -> Vec<usize> {
        self.counts(n).into_iter().scan(0, |end, count| Some(std::mem::replace(end, *end + count))).collect()
    }

    /// The first row of this rank among those of all.
    pub fn first_row(self, n: usize) -> usize {
        // A step of one rank takes no memory.
        if self.size == 1 { 0 } else { self.starts(n)[self.rank] }
    }

    /// For the sequence at each place its row among those of all ranks: each rank's in the order of their places.
    fn rows(self, n: usize) -> Vec<i32> {
        let starts = self.starts(n);
        (0..n).map(|place| (starts[self.rank_of(place)] + place / self.size) as i32).collect()
    }

    /// Bounds of the sequences that one rank has of batches within `bounds`; what a batch is made of stays whole.
    pub fn bounds(self, bounds: &BatchBounds) -> BatchBounds {
        if self.size == 1 {
            return *bounds;
        }
        // In each round but the first a rank gets at most the shortest of the round before.
        let n_tokens = bounds.n_tokens.min(bounds.n_tokens / self.size + bounds.longest);
        BatchBounds { n_seqs: bounds.n_seqs.div_ceil(self.size), n_tokens, ..*bounds }
    }
}

/// The sequences of one rank. Memory is reused from batch to batch.
#[derive(Clone, Debug, Default)]
pub struct Share {
    /// Token ids of its sequences, end to end.
    pub ids: Vec<i32>,
    /// `(n + 1,)` where each of its sequences starts in `ids`, and where the last one ends.
    pub cu_seqlens: Vec<i32>,
    /// `(n,)` the number of each one's first token in the batch.
    pub first_rows: Vec<i32>,
    /// `(n_seqs,)` the row of every sequence of the batch among those of all ranks, by the sequence's number.
    pub places: Vec<i32>,
}

impl Share {
    /// Takes this rank's share of `batch`.
    pub fn take(&mut self, deal: Deal, batch: &Batch) {
        let n = batch.places.len();
        let rows = deal.rows(n);
        self.places.clear();
        self.places.extend(batch.places.iter().map(|&place| rows[place as usize]));
        self.ids.clear();
        self.first_rows.clear();
        self.cu_seqlens.clear();
        self.cu_seqlens.push(0);
        for place in deal.places(n) {
            let [start, end] = [batch.cu_seqlens[place], batch.cu_seqlens[place + 1]];
            self.first_rows.push(start);
            self.ids.extend_from_slice(&batch.ids[start as usize..end as usize]);
            self.cu_seqlens.push(self.ids.len() as i32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_dealt_there_and_back() {
        let of = |size: usize| Deal { rank: 0, size };
        let ranks: Vec<usize> = (0..8).map(|place| of(3).rank_of(place)).collect();
        assert_eq!(ranks, [0, 1, 2, 2, 1, 0, 0, 1]);
        assert_eq!(of(3).counts(8), [3, 3, 2]);
        // Rank 0 has places 0, 5, 6, rank 1 has 1, 4, 7, rank 2 has 2, 3.
        assert_eq!(of(3).rows(8), [0, 3, 6, 7, 4, 1, 2, 5]);
        assert_eq!([0, 1, 2].map(|rank| Deal { rank, size: 3 }.first_row(8)), [0, 3, 6]);
        assert_eq!(of(4).counts(2), [1, 1, 0, 0]);
        assert_eq!(of(4).counts(6), [1, 1, 2, 2]);
        assert_eq!(Deal::ALONE.rows(4), [0, 1, 2, 3]);
    }

    /// Whatever the lengths, no rank has more than its bound, and all have everything once.
    #[test]
    fn no_rank_has_more_than_its_bound() {
        for (size, n) in [(1, 5), (2, 7), (3, 9), (4, 10), (5, 3), (8, 64)] {
            let mut lens: Vec<i32> = (0..n).map(|i| 1 + (i * i * 7) % 50).collect();
            lens.sort_unstable_by_key(|len| -len);
            let mut cu_seqlens = vec![0];
            lens.iter().for_each(|len| cu_seqlens.push(cu_seqlens.last().unwrap() + len));
            let n_tokens = *cu_seqlens.last().unwrap();
            let batch = Batch { ids: (0..n_tokens).collect(), places: (0..n).rev().collect(), cu_seqlens, ..empty() };
            let bounds = BatchBounds {
                n_queries: 1,
                n_seqs: n as usize,
                n_tokens: n_tokens as usize,
                shortest: 1,
                longest: lens[0] as usize,
                shares_texts: false,
            };
            let mut seen = Vec::new();
            for rank in 0..size {
                let deal = Deal { rank, size };
                let mut share = Share::default();
                share.take(deal, &batch);
                let most = deal.bounds(&bounds);
                assert!(share.first_rows.len() <= most.n_seqs && share.ids.len() <= most.n_tokens, "{size} {n}");
                for (i, &row) in share.first_rows.iter().enumerate() {
                    let range = share.cu_seqlens[i] as usize..share.cu_seqlens[i + 1] as usize;
                    // Ids are the tokens' numbers.
                    assert_eq!(share.ids[range.start], row);
                    // The sequence of this place is known to be in this row of all.
                    let place = batch.cu_seqlens.iter().position(|&start| start == row).unwrap();
                    let seq = batch.places.iter().position(|&at| at as usize == place).unwrap();
                    assert_eq!(share.places[seq] as usize, deal.first_row(n as usize) + i);
                    seen.extend_from_slice(&share.ids[range]);
                }
            }
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..n_tokens), "{size} {n}");
        }
    }

    fn empty() -> Batch {
        Batch {
            step: 0,
            kind: crate::data::sampler::BatchKind::MixedMonolingual,
            dataset: None,
            n_queries: 0,
            n_passages: 0,
            ids: vec![],
            cu_seqlens: vec![],
            places: vec![],
            labels: vec![],
            left_out: vec![],
            rejected: vec![],
            own_negatives: vec![],
            teacher_scores: vec![],
            query_langs: vec![],
            passage_langs: vec![],
        }
    }
}
