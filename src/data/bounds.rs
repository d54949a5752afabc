//! How large a batch can become, so that memory for it can be had before the first step.

use super::catalog::Role;
use super::shard::TokenCache;

/// What no batch of a run exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchBounds {
    /// Queries of every batch.
    pub n_queries: usize,
    /// Queries and passages.
    pub n_seqs: usize,
    /// Tokens of all of them.
    pub n_tokens: usize,
    /// Tokens of the shortest text.
    pub shortest: usize,
    /// Tokens of the longest text.
    pub longest: usize,
}

impl BatchBounds {
    /// Of batches of `batch_size` rows with at most `max_negatives` negatives each (`None`: all). No two rows of a batch
    /// are of one group of one dataset, so the groups with the most tokens, each at its longest, are the worst there can be,
    /// and likewise those with the most negatives.
    pub fn new<'a>(
        datasets: impl IntoIterator<Item = &'a TokenCache>,
        batch_size: usize,
        max_negatives: Option<usize>,
    ) -> Self {
        let (mut n_negatives, mut n_tokens): (Vec<usize>, Vec<usize>) = Default::default();
        let (mut shortest, mut longest) = (usize::MAX, 0);
        let groups = datasets.into_iter().flat_map(|data| (0..data.n_groups()).map(move |group| (data, group)));
        for (data, group) in groups {
            // Longest query, longest positive, and most tokens of the negatives in one language.
            let (mut tokens, mut most_negatives, mut negatives) = ([0usize; 3], 0, Negatives::default());
            for info in data.group_texts(group).map(|text| data.text_info(text)) {
                let len = info.len as usize;
                (shortest, longest) = (shortest.min(len), longest.max(len));
                match info.role {
                    Role::Query => tokens[0] = tokens[0].max(len),
                    Role::Positive => tokens[1] = tokens[1].max(len),
                    Role::Negative => {
                        negatives.add(info.lang, len);
                        let n = negatives.n.min(max_negatives.unwrap_or(usize::MAX));
                        most_negatives = most_negatives.max(n);
                        tokens[2] = tokens[2].max(negatives.tokens.min(n * negatives.longest));
                    }
                }
            }
            n_negatives.push(most_negatives);
            n_tokens.push(tokens.iter().sum());
        }
        BatchBounds {
            n_queries: batch_size,
            n_seqs: 2 * batch_size + sum_of_largest(n_negatives, batch_size),
            n_tokens: sum_of_largest(n_tokens, batch_size),
            shortest: shortest.min(longest),
            longest,
        }
    }
}

fn sum_of_largest(mut numbers: Vec<usize>, n: usize) -> usize {
    if n < numbers.len() {
        numbers.select_nth_unstable_by(n, |a, b| b.cmp(a));
    }
    numbers.iter().take(n).sum()
}

/// A group's negatives in one language; a group's texts come language by language.
#[derive(Default)]
struct Negatives {
    lang: u16,
    n: usize,
    tokens: usize,
    longest: usize,
}

impl Negatives {
    fn add(&mut self, lang: u16, len: usize) {
        if lang != self.lang {
            *self = Negatives { lang, ..Negatives::default() };
        }
        self.n += 1;
        self.tokens += len;
        self.longest = self.longest.max(len);
    }
}
