//! Which groups have the same answer.
//!
//! Groups that share a text, be it a query or a positive, ask or answer the same, and so do all groups joined by a
//! chain of such groups. In XQuAD-R several questions are answered by one sentence: its German version may stand in
//! another question's group, and is still the answer. So a passage with the label of a row's group is never mined as
//! the row's negative.
//!
//! The labels of the token cache (`shard/labels.rs`) ask for more, half of the texts: they keep groups from being each
//! other's negatives in every batch, so one wrong join costs a chain of groups their negatives. Here a wrong join costs
//! one of the many candidates that a search finds, but a missing join makes a wrong negative.

use std::collections::HashMap;

use super::catalog::Role;
use super::union_find::UnionFind;

/// The groups of a data set, labelled by their answers.
pub struct SameAnswer {
    labels: Vec<u64>,
    /// First group with each text, by the text's hash.
    first_with: HashMap<u64, u64>,
}

impl SameAnswer {
    /// Joins groups that share a text. `texts`: `(group, role, text hash)`, in any order. The hash is that of
    /// [`text_hash`](super::catalog::TextSource::text_hash), so equal texts are the same in every language and role.
    /// Negatives join nothing.
    ///
    /// # Panics
    /// If a group is not below `n_groups`.
    pub fn new(n_groups: u64, texts: impl IntoIterator<Item = (u64, Role, u64)>) -> Self {
        let mut sets = UnionFind::new(n_groups as usize);
        let mut first_with: HashMap<u64, u64> = HashMap::new();
        for (group, role, hash) in texts {
            assert!(group < n_groups, "group {group} of {n_groups}");
            if role != Role::Negative {
                let first = *first_with.entry(hash).or_insert(group);
                sets.join(first as usize, group as usize);
            }
        }
        let labels = (0..n_groups as usize).map(|group| sets.root(group) as u64).collect();
        SameAnswer { labels, first_with }
    }

    /// The label of every group: equal exactly for groups with the same answer. It is the lowest number of such a
    /// group, so it does not depend on the order of the texts.
    pub fn labels(&self) -> &[u64] {
        &self.labels
    }

    /// The label of the groups that have this text as a query or positive.
    pub fn label_of_text(&self, hash: u64) -> Option<u64> {
        self.first_with.get(&hash).map(|&group| self.labels[group as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{below, hash};

    const Q: Role = Role::Query;
    const P: Role = Role::Positive;
    const N: Role = Role::Negative;

    #[test]
    fn shared_texts_join_groups_and_their_neighbours() {
        // 0 and 2 share a positive, 2 and 4 a query; a query of 1 is a positive of 5; 3 shares only negatives.
        let texts = [(0, Q, 1), (0, P, 10), (1, Q, 20), (1, P, 21), (2, Q, 3), (2, P, 10), (3, Q, 5), (3, P, 11)];
        let more = [(3, N, 10), (4, Q, 3), (4, P, 12), (5, Q, 22), (5, P, 20), (1, N, 12), (1, N, 30)];
        let same = SameAnswer::new(7, texts.into_iter().chain(more));
        assert_eq!(same.labels(), [0, 1, 0, 3, 0, 1, 6]);
        assert_eq!([12, 22, 11, 30].map(|text| same.label_of_text(text)), [Some(0), Some(1), Some(3), None]);
    }

    #[test]
    fn no_groups_and_groups_without_texts() {
        assert_eq!(SameAnswer::new(0, []).labels(), [0u64; 0]);
        assert_eq!(SameAnswer::new(3, []).labels(), [0, 1, 2]);
    }

    /// Spreads the lowest label over whoever shares a text until nothing changes.
    fn by_spreading(n_groups: u64, texts: &[(u64, Role, u64)]) -> Vec<u64> {
        let mut labels: Vec<u64> = (0..n_groups).collect();
        loop {
            let before = labels.clone();
            for (a, _, hash) in texts.iter().filter(|text| text.1 != N) {
                for (b, _, _) in texts.iter().filter(|text| text.1 != N && text.2 == *hash) {
                    labels[*a as usize] = labels[*a as usize].min(labels[*b as usize]);
                }
            }
            if labels == before {
                return labels;
            }
        }
    }

    #[test]
    fn labels_agree_with_spreading_whatever_the_order_of_texts() {
        for seed in 0..40 {
            let n_groups = 30;
            // From all groups in one set to hardly anything shared.
            let n_hashes = 20 + 20 * seed;
            let text = |i: u64| {
                let bits = |k: u64| hash(&[seed, i, k]);
                let role = [Q, P, N][below(bits(0), 3) as usize];
                (below(bits(1), n_groups), role, below(bits(2), n_hashes))
            };
            let mut texts: Vec<(u64, Role, u64)> = (0..60).map(text).collect();
            let expected = by_spreading(n_groups, &texts);
            assert_eq!(SameAnswer::new(n_groups, texts.iter().copied()).labels(), expected, "seed {seed}");
            texts.reverse();
            assert_eq!(SameAnswer::new(n_groups, texts).labels(), expected, "seed {seed}, reversed");
        }
    }
}
