//! Which texts say the same, so that none of them is another's negative.
//!
//! Groups that share a positive answer each other's queries, in every language that they have, and so do groups that
//! share a query: they are joined. Where two XQuAD-R questions have one answer sentence, the German version of that
//! sentence answers both of them, although it is in one group's row only and its text is like neither.
//!
//! A label is the least hash among the positives of the joined groups. It depends on the texts alone, not on where
//! they are in the data, and no other group has that hash among its positives. A negative that is some group's positive
//! word for word has that one's label; any other negative has its own hash, which is no group's label.

use rayon::prelude::*;

use super::file::TextRecord;
use crate::data::catalog::Role;
use crate::data::union::Union;

/// The labels of all texts.
pub(super) struct Labels {
    of_groups: Vec<u64>,
    /// Hash of each group's positives, and the group; ascending.
    positives: Vec<(u64, u32)>,
}

impl Labels {
    /// Joins `n_groups` groups by what their texts are.
    pub(super) fn new<'a, I: Iterator<Item = &'a TextRecord>>(
        n_groups: usize,
        texts_of: impl Fn(usize) -> I + Sync,
    ) -> Self {
        let hashes = |role: Role| {
            let of_group = |group: usize| {
                let texts = texts_of(group).filter(move |text| text.role == role as u16);
                texts.map(move |text| (text.hash, group as u32))
            };
            let mut hashes: Vec<(u64, u32)> = (0..n_groups).into_par_iter().flat_map_iter(of_group).collect();
            hashes.par_sort_unstable();
            hashes
        };
        let mut union = Union::new(n_groups);
        let mut join = |hashes: &[(u64, u32)]| {
            for pair in hashes.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
                union.join(pair[0].1 as usize, pair[1].1 as usize);
            }
        };
        join(&hashes(Role::Query));
        let positives = hashes(Role::Positive);
        join(&positives);
        let mut least = vec![u64::MAX; n_groups];
        for &(hash, group) in &positives {
            let root = union.root(group as usize);
            least[root] = least[root].min(hash);
        }
        let of_groups = (0..n_groups).map(|group| least[union.root(group)]).collect();
        Labels { of_groups, positives }
    }

    /// The label of a text of a group.
    pub(super) fn label(&self, group: usize, text: &TextRecord) -> u64 {
        if text.role != Role::Negative as u16 {
            return self.of_groups[group];
        }
        let at = self.positives.partition_point(|(hash, _)| *hash < text.hash);
        let found = self.positives.get(at).filter(|(hash, _)| *hash == text.hash);
        found.map_or(text.hash, |(_, group)| self.of_groups[*group as usize])
    }
}
