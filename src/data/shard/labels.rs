//! Labels (class ids) of texts: texts that say the same have one label, so that none of them is another's negative.
//!
//! Groups that share positives answer each other's queries, in every language that they have, and so do groups that
//! share queries: they are joined. If two XQuAD-R questions have one answer sentence, the German version of that
//! sentence answers both of them, although it is in one group's row only and its text is like neither. One shared text
//! of many is no reason to join: the Thai version of two sentences may be one sentence that holds both. Groups are
//! joined if they share half of the queries, or of the positives, of the one that has fewer. (In a batch, rows with an
//! equal text have one label, whatever their groups. And `hbt mine` joins groups by any shared text, see
//! `data/same_answer.rs`: it can spare candidates.)
//!
//! A label is a hash of all positives of the joined groups: it depends on the texts alone, not on where they are in the
//! data. A negative that is some group's positive word for word has that group's label; any other negative has its own
//! hash.

use std::collections::HashMap;

use rayon::prelude::*;

use super::file::TextRecord;
use crate::data::catalog::Role;
use crate::data::union_find::UnionFind;
use crate::random;

/// The labels of all texts.
pub(super) struct Labels {
    of_groups: Vec<u64>,
    /// Hash of each group's positives, and the group; ascending.
    positives: Vec<(u64, u32)>,
}

impl Labels {
    /// Joins `n_groups` groups by their texts.
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
            hashes.dedup();
            hashes
        };
        let mut union = UnionFind::new(n_groups);
        join_like(&mut union, &hashes(Role::Query));
        let positives = hashes(Role::Positive);
        join_like(&mut union, &positives);
        // Each text of joined groups once.
        let mut texts: Vec<(usize, u64)> =
            positives.iter().map(|&(hash, group)| (union.root(group as usize), hash)).collect();
        texts.par_sort_unstable();
        texts.dedup();
        let mut of_roots = vec![0u64; n_groups];
        for (root, hash) in texts {
            of_roots[root] = random::hash(&[of_roots[root], hash]);
        }
        let of_groups = (0..n_groups).map(|group| of_roots[union.root(group)]).collect();
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

/// Most groups with one text that are compared pairwise; if there are more, only neighbours are compared.
const MOST_PAIRWISE: usize = 32;

/// Joins groups that share half of the texts of the one with fewer. `texts`: hashes and groups, strictly ascending.
fn join_like(union: &mut UnionFind, texts: &[(u64, u32)]) {
    let mut n_texts: HashMap<u32, usize> = HashMap::new();
    texts.iter().for_each(|(_, group)| *n_texts.entry(*group).or_default() += 1);
    let mut pairs: Vec<(u32, u32)> = Vec::new();
    for with_text in texts.chunk_by(|a, b| a.0 == b.0) {
        let reach = if with_text.len() <= MOST_PAIRWISE { MOST_PAIRWISE } else { 1 };
        for (i, (_, a)) in with_text.iter().enumerate() {
            pairs.extend(with_text[i + 1..].iter().take(reach).map(|(_, b)| (*a, *b)));
        }
    }
    pairs.par_sort_unstable();
    for same in pairs.chunk_by(|a, b| a == b) {
        let (a, b) = same[0];
        if 2 * same.len() >= n_texts[&a].min(n_texts[&b]) {
            union.join(a as usize, b as usize);
        }
    }
}
