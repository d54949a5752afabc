//! Sets of groups as unions of ranges of group numbers, and the class of a group.

use crate::data::catalog::{Catalog, Class};
use std::ops::Range;

/// A set of groups that gives its i-th member. Its size is that of its list of ranges.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupSet {
    /// Ascending, neither overlapping nor touching, not empty.
    ranges: Vec<Range<u64>>,
    /// For each range the number of members up to its end.
    ends: Vec<u64>,
}

impl GroupSet {
    fn new(ranges: Vec<Range<u64>>) -> Self {
        let mut end = 0;
        let ends = ranges
            .iter()
            .map(|range| {
                end += range.end - range.start;
                end
            })
            .collect();
        GroupSet { ranges, ends }
    }

    /// Number of groups.
    pub fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The group at an index below [`GroupSet::len`].
    pub fn group(&self, index: u64) -> u64 {
        let i = self.ends.partition_point(|&end| end <= index);
        self.ranges[i].end - (self.ends[i] - index)
    }

    /// Whether a group is in the set.
    pub fn contains(&self, group: u64) -> bool {
        let i = self.ranges.partition_point(|range| range.end <= group);
        self.ranges.get(i).is_some_and(|range| range.contains(&group))
    }

    /// The ranges of group numbers.
    pub fn ranges(&self) -> impl Iterator<Item = &Range<u64>> {
        self.ranges.iter()
    }
}

/// Adds a range behind others.
fn add(ranges: &mut Vec<Range<u64>>, next: Range<u64>) {
    match ranges.last_mut() {
        // Neighbours are joined, so that equal sets are equal values.
        Some(last) if last.end == next.start => last.end = next.end,
        _ => ranges.push(next),
    }
}

/// Number of groups that are in at least one of the ranges.
pub fn union_len<'a>(ranges: impl Iterator<Item = &'a Range<u64>>) -> u64 {
    let mut ranges: Vec<_> = ranges.collect();
    ranges.sort_unstable_by_key(|range| range.start);
    let (mut len, mut covered) = (0, 0);
    for range in ranges {
        len += range.end.saturating_sub(covered.max(range.start));
        covered = covered.max(range.end);
    }
    len
}

/// The classes of a catalog, with the group numbers at which they end.
pub struct ClassIndex {
    classes: Vec<Class>,
    ends: Vec<u64>,
}

impl ClassIndex {
    /// Indexes the classes of `catalog`; those without groups are left out.
    pub fn new(catalog: &Catalog) -> Self {
        let classes: Vec<Class> = catalog.classes.iter().filter(|class| class.n_groups > 0).cloned().collect();
        let mut end = 0;
        let ends = classes
            .iter()
            .map(|class| {
                end += class.n_groups;
                end
            })
            .collect();
        ClassIndex { classes, ends }
    }

    /// The class of a group.
    pub fn class_of(&self, group: u64) -> &Class {
        &self.classes[self.ends.partition_point(|&end| end <= group)]
    }

    /// The groups of all classes for which `wanted` holds.
    pub fn select(&self, wanted: impl Fn(&Class) -> bool) -> GroupSet {
        let mut ranges = Vec::new();
        for (class, &end) in self.classes.iter().zip(&self.ends).filter(|(class, _)| wanted(class)) {
            add(&mut ranges, end - class.n_groups..end);
        }
        GroupSet::new(ranges)
    }

    /// For each of `n_langs` languages the groups with query and positive in it, in one go.
    pub fn by_lang(&self, n_langs: usize) -> Vec<GroupSet> {
        let mut ranges = vec![Vec::new(); n_langs];
        for (class, &end) in self.classes.iter().zip(&self.ends) {
            for lang in class.common_langs() {
                add(&mut ranges[usize::from(lang)], end - class.n_groups..end);
            }
        }
        ranges.into_iter().map(GroupSet::new).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(sizes: &[u64]) -> ClassIndex {
        let class = |(i, &n_groups): (usize, &u64)| Class {
            n_groups,
            query_langs: vec![i as u16],
            passage_langs: vec![i as u16],
        };
        ClassIndex::new(&Catalog { languages: Vec::new(), classes: sizes.iter().enumerate().map(class).collect() })
    }

    #[test]
    fn a_set_lists_the_groups_of_its_classes() {
        let classes = index(&[3, 0, 2, 4, 1]);
        let set = classes.select(|class| [0, 3, 4].contains(&class.query_langs[0]));
        let listed: Vec<u64> = (0..set.len()).map(|i| set.group(i)).collect();
        assert_eq!(listed, [0, 1, 2, 5, 6, 7, 8, 9]);
        assert_eq!(classes.class_of(2).query_langs, [0]);
        assert_eq!(classes.class_of(3).query_langs, [2]);
        assert_eq!(classes.class_of(9).query_langs, [4]);
    }

    #[test]
    fn an_empty_class_does_not_make_sets_differ() {
        let classes = index(&[3, 0, 2]);
        assert_eq!(classes.select(|_| true), classes.select(|class| class.n_groups > 0));
        assert_eq!(classes.select(|_| false).len(), 0);
    }

    #[test]
    fn a_union_counts_every_group_once() {
        assert_eq!(union_len([0..5, 3..8, 4..6, 20..21, 8..9].iter()), 10);
    }
}
