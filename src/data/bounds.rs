//! Upper bounds of a batch's size, so that memory for it can be reserved before the first step.

use super::catalog::{LangId, Role, TextSource};
use super::shard::TokenCache;
use std::collections::BTreeMap;

/// Sizes that no batch of a run exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchBounds {
    /// Queries of every batch.
    pub n_queries: usize,
    /// Number of queries and passages.
    pub n_seqs: usize,
    /// Number of tokens in all sequences.
    pub n_tokens: usize,
    /// Tokens of the shortest text.
    pub shortest: usize,
    /// Tokens of the longest text.
    pub longest: usize,
    /// Whether rows may have an answer in common, so that [`Batch::left_out`](super::batch::Batch) has bits.
    pub shares_texts: bool,
}

impl BatchBounds {
    /// Bounds of batches of `batch_size` rows with at most `max_negatives` negatives each (`None`: all).
    pub fn new<'a>(
        datasets: impl IntoIterator<Item = &'a TokenCache>,
        batch_size: usize,
        max_negatives: Option<usize>,
    ) -> Self {
        GroupSizes::new(datasets, max_negatives).bounds(batch_size)
    }
}

/// Sizes of the groups of some data, and so bounds of batches with any number of rows.
#[derive(Clone, Debug)]
pub struct GroupSizes {
    max_negatives: usize,
    /// For each number of tokens, counting each text at its longest, how many groups have it.
    by_tokens: BTreeMap<usize, u64>,
    /// For each number of negatives, how many groups give at most so many.
    by_negatives: BTreeMap<usize, u64>,
    shortest: usize,
    longest: usize,
    shares_texts: bool,
}

impl GroupSizes {
    /// Sizes of tokenized data, of which rows have at most `max_negatives` negatives (`None`: all).
    pub fn new<'a>(datasets: impl IntoIterator<Item = &'a TokenCache>, max_negatives: Option<usize>) -> Self {
        let mut sizes = GroupSizes::none(max_negatives, false);
        for (number, data) in datasets.into_iter().enumerate() {
            // Whether two datasets share any is not looked up.
            sizes.shares_texts |= data.shares_texts() || number > 0;
            for group in 0..data.n_groups() {
                let infos = data.group_texts(group).map(|text| data.text_info(text));
                sizes.add(1, infos.map(|info| (info.role, info.lang, info.len as usize)));
            }
        }
        sizes
    }

    /// Sizes of no groups yet, and whether they may share texts.
    pub fn none(max_negatives: Option<usize>, shares_texts: bool) -> Self {
        let max_negatives = max_negatives.unwrap_or(usize::MAX);
        let (by_tokens, by_negatives) = Default::default();
        GroupSizes { max_negatives, by_tokens, by_negatives, shortest: usize::MAX, longest: 0, shares_texts }
    }

    /// Adds `n` groups that have these texts: role, language and tokens, negatives language by language.
    pub fn add(&mut self, n: u64, texts: impl Iterator<Item = (Role, LangId, usize)>) {
        // Longest query, longest positive, and most tokens of the negatives in one language.
        let (mut tokens, mut most_negatives, mut negatives) = ([0usize; 3], 0, Negatives::default());
        for (role, lang, len) in texts {
            (self.shortest, self.longest) = (self.shortest.min(len), self.longest.max(len));
            match role {
                Role::Query => tokens[0] = tokens[0].max(len),
                Role::Positive => tokens[1] = tokens[1].max(len),
                Role::Negative => {
                    negatives.add(lang, len);
                    let n = negatives.n.min(self.max_negatives);
                    most_negatives = most_negatives.max(n);
                    tokens[2] = tokens[2].max(negatives.tokens.min(n * negatives.longest));
                }
            }
        }
        *self.by_tokens.entry(tokens.iter().sum()).or_default() += n;
        *self.by_negatives.entry(most_negatives).or_default() += n;
    }

    /// Sizes that no batch of `batch_size` rows exceeds. No two rows of a batch are from one group of one dataset, so
    /// the worst batch has the groups with the most tokens, each at its longest, or those with the most negatives.
    pub fn bounds(&self, batch_size: usize) -> BatchBounds {
        BatchBounds {
            n_queries: batch_size,
            n_seqs: 2 * batch_size + sum_of_largest(&self.by_negatives, batch_size),
            n_tokens: sum_of_largest(&self.by_tokens, batch_size),
            shortest: self.shortest.min(self.longest),
            longest: self.longest,
            shares_texts: self.shares_texts,
        }
    }
}

/// The sum of the `n` largest of some numbers, given how often each occurs.
fn sum_of_largest(numbers: &BTreeMap<usize, u64>, n: usize) -> usize {
    let mut left = n as u64;
    let mut take = |(&number, &times): (&usize, &u64)| {
        let times = times.min(left);
        left -= times;
        number * times as usize
    };
    numbers.iter().rev().map(&mut take).sum()
}

/// The negatives of a group, counted per language; the texts of a group come sorted by language.
#[derive(Default)]
struct Negatives {
    lang: LangId,
    n: usize,
    tokens: usize,
    longest: usize,
}

impl Negatives {
    fn add(&mut self, lang: LangId, len: usize) {
        if lang != self.lang {
            *self = Negatives { lang, ..Negatives::default() };
        }
        self.n += 1;
        self.tokens += len;
        self.longest = self.longest.max(len);
    }
}
