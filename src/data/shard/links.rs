//! Links between groups that have a text in common, by which a batch finds who answers whom (`data/same_answer.rs`):
//! from a query to the next group that asks the same in the same words, in a circle, and from a negative to a group
//! that has it as a positive.

use rayon::prelude::*;

use super::file::TextRecord;
use crate::data::catalog::Role;

/// No group.
pub(super) const NONE: u64 = u64::MAX;

/// Hashes of texts, and groups that have them; ascending, each pair once.
type Holders = Vec<(u64, u32)>;

/// The links of all texts.
pub(super) struct Links {
    queries: Holders,
    positives: Holders,
}

impl Links {
    /// Links between `n_groups` groups.
    pub(super) fn new<'a, I: Iterator<Item = &'a TextRecord>>(
        n_groups: usize,
        texts_of: impl Fn(usize) -> I + Sync,
    ) -> Self {
        let holders = |role: Role| {
            let of_group = |group: usize| {
                let texts = texts_of(group).filter(move |text| text.role == role as u16);
                texts.map(move |text| (text.hash, group as u32))
            };
            let mut holders: Holders = (0..n_groups).into_par_iter().flat_map_iter(of_group).collect();
            holders.par_sort_unstable();
            holders.dedup();
            holders
        };
        Links { queries: holders(Role::Query), positives: holders(Role::Positive) }
    }

    /// Where a text of a group leads: a query to the next group with the same query (to its own if there is no other),
    /// a negative to the first group with the same positive or to [`NONE`], a positive to [`NONE`].
    pub(super) fn link(&self, group: usize, text: &TextRecord) -> u64 {
        let first_with = |holders: &Holders| {
            let first = holders.get(holders.partition_point(|(hash, _)| *hash < text.hash));
            first.filter(|(hash, _)| *hash == text.hash).map_or(NONE, |(_, group)| u64::from(*group))
        };
        match text.role {
            role if role == Role::Query as u16 => {
                let next = self.queries.partition_point(|holder| *holder <= (text.hash, group as u32));
                let next = self.queries.get(next).filter(|(hash, _)| *hash == text.hash);
                next.map_or_else(|| first_with(&self.queries), |(_, group)| u64::from(*group))
            }
            role if role == Role::Negative as u16 => first_with(&self.positives),
            _ => NONE,
        }
    }

    /// Whether two groups have a text in common, each as its query or as its positive.
    pub(super) fn any_shared(&self) -> bool {
        let repeats = |holders: &Holders| holders.windows(2).any(|two| two[0].0 == two[1].0);
        // A group whose query is its own answer shares it with no other.
        let asked = |(hash, group): &(u64, u32)| {
            let from = self.queries.partition_point(|(other, _)| other < hash);
            self.queries[from..].iter().take_while(|(other, _)| other == hash).any(|(_, other)| other != group)
        };
        repeats(&self.queries) || repeats(&self.positives) || self.positives.par_iter().any(asked)
    }
}
