//! Questions that are held out of the training data to evaluate on.
//!
//! A question is all groups that ask it in the same words, in any language and any dataset: they are on one side. Which
//! questions are held out goes by hashes of the seed and their texts, so that neither order nor place of the data matters.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::{Datasets, Member, classes_of};
use crate::data::catalog::{Role, TextSource, text_hash};
use crate::data::formats::Group;
use crate::data::union_find::UnionFind;
use crate::error::counted;
use crate::random::hash;
use crate::{Error, Result};

/// The questions that are held out. `Display` says how many, in one line.
#[derive(Clone, Debug)]
pub struct HeldOut {
    /// Hashes of the texts of their queries, in all languages.
    queries: HashSet<u64>,
    /// Name, number of groups held out and number of groups of each dataset.
    counts: Vec<(String, u64, u64)>,
    n_texts: [u64; 2],
}

impl HeldOut {
    /// Whether a group, or the part of it that a row holds, is held out.
    pub fn has(&self, group: &Group) -> bool {
        group.queries.iter().any(|query| self.queries.contains(&text_hash(&query.text)))
    }

    /// Numbers of queries and of passages, equal ones counted each.
    pub fn n_texts(&self) -> [usize; 2] {
        self.n_texts.map(|n| n as usize)
    }
}

impl fmt::Display for HeldOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |held: u64, all: u64| format!("{held} of {}", counted(all, "group"));
        match self.counts.as_slice() {
            [(_, held, all)] => write!(f, "held out to evaluate on: {}", of(*held, *all)),
            several => {
                let of_each = several.iter().map(|(name, held, all)| format!("{} in {name:?}", of(*held, *all)));
                write!(f, "held out to evaluate on: {}", of_each.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl Datasets {
    /// Takes a share of each dataset's groups, above 0 and below 1, out of the data: of a dataset's questions those whose
    /// hashes come first, as many as fit into its share.
    ///
    /// # Errors
    /// If that is no group, or there are too many groups.
    pub fn hold_out(mut self, fraction: f64, seed: u64) -> Result<(Datasets, HeldOut)> {
        let taken = self.choose(fraction, seed)?;
        let mut held =
            HeldOut { queries: HashSet::new(), counts: Vec::with_capacity(self.members.len()), n_texts: [0; 2] };
        for group in (0..self.catalog.n_groups()).filter(|group| taken[*group as usize]) {
            let queries = self.hashes(group, Role::Query);
            held.n_texts[0] += queries.len() as u64;
            held.queries.extend(queries.into_iter().map(|(_, hash)| hash));
            let (member, group) = self.place_of(group);
            let passages = member.cache.group_texts(group).filter(|text| {
                let role = member.cache.text_info(*text).role;
                role != Role::Query
            });
            held.n_texts[1] += passages.count() as u64;
        }
        let mut first_group = 0;
        for member in &mut self.members {
            let n_groups = member.catalog.n_groups();
            let taken = &taken[member.first_group as usize..][..n_groups as usize];
            member.keep(taken);
            held.counts.push((member.name.clone(), n_groups - member.catalog.n_groups(), n_groups));
            member.first_group = first_group;
            first_group += member.catalog.n_groups();
        }
        self.catalog.classes = classes_of(&self.members);
        self.left_out_by.push("eval_fraction");
        Ok((self, held))
    }

    /// Whether each group is held out.
    fn choose(&self, fraction: f64, seed: u64) -> Result<Vec<bool>> {
        let n_groups = self.catalog.n_groups();
        let Ok(n) = u32::try_from(n_groups).map(|n| n as usize) else {
            return Err(Error::config("eval_fraction", "takes at most 4,294,967,295 groups; name eval_data instead"));
        };
        let mut questions = UnionFind::new(n);
        let mut first_asking = HashMap::new();
        let mut keys = vec![u64::MAX; n];
        for (group, key) in keys.iter_mut().enumerate() {
            for (_, query) in self.hashes(group as u64, Role::Query) {
                *key = hash(&[seed, PURPOSE, query]).min(*key);
                questions.join(group, *first_asking.entry(query).or_insert(group));
            }
        }
        // Groups of each question, by dataset: a question may be in several.
        let n_members = self.members.len();
        let mut sizes = vec![0u32; n * n_members];
        for group in 0..n {
            let root = questions.root(group);
            keys[root] = keys[root].min(keys[group]);
            sizes[root * n_members + self.number_of_member(group as u64)] += 1;
        }
        let sizes = |root: usize| &sizes[root * n_members..][..n_members];
        let mut order: Vec<usize> = (0..n).filter(|root| sizes(*root).iter().any(|size| *size > 0)).collect();
        order.sort_unstable_by_key(|root| keys[*root]);
        // A dataset keeps something to train on.
        let share = |member: &Member| {
            let n = member.catalog.n_groups();
            ((fraction * n as f64).round() as u64).min(n.saturating_sub(1))
        };
        let mut left: Vec<u64> = self.members.iter().map(share).collect();
        let is_too_small = left.iter().all(|n| *n == 0);
        order.retain(|root| {
            let sizes = || sizes(*root).iter().map(|size| u64::from(*size));
            let fits = left.iter().zip(sizes()).all(|(left, size)| size <= *left);
            left.iter_mut().zip(sizes()).for_each(|(left, size)| *left -= if fits { size } else { 0 });
            fits
        });
        if order.is_empty() {
            let message = match is_too_small {
                true => format!("{fraction} of {} is none; raise it, or name eval_data", counted(n_groups, "group")),
                false => format!(
                    "{fraction} of {} cannot be held out, as they ask too few different questions; raise it, or name eval_data",
                    counted(n_groups, "group")
                ),
            };
            return Err(Error::config("eval_fraction", message));
        }
        let roots: HashSet<usize> = order.into_iter().collect();
        Ok((0..n).map(|group| roots.contains(&questions.root(group))).collect())
    }
}

/// Keeps these hashes apart from those of others with the same seed.
const PURPOSE: u64 = 201;

impl Member {
    /// Takes out the groups that are `taken`.
    fn keep(&mut self, taken: &[bool]) {
        assert!(self.kept.is_none(), "groups are held out once");
        let mut first = 0;
        let mut kept = Vec::with_capacity(taken.len());
        for class in &mut self.catalog.classes {
            let of_class = first..first + class.n_groups;
            first = of_class.end;
            let before = kept.len();
            kept.extend(of_class.filter(|group| !taken[*group as usize]).map(|group| group as u32));
            class.n_groups = (kept.len() - before) as u64;
        }
        self.kept = Some(kept);
    }
}
