//! Union-find (disjoint sets), with path halving.

/// A partition of `0..n` into sets, initially of one member each.
pub(super) struct UnionFind {
    /// Parent of each member in the tree of its set; the root, which stands for the set, is its own parent.
    parents: Vec<u32>,
}

impl UnionFind {
    /// `n` sets of one member; at most 2^32 members.
    pub(super) fn new(n: usize) -> Self {
        assert!(u32::try_from(n).is_ok(), "more than 4,294,967,295 members");
        UnionFind { parents: (0..n as u32).collect() }
    }

    /// Root of the set of `member`: its least member.
    pub(super) fn root(&mut self, member: usize) -> usize {
        let mut at = member as u32;
        while self.parents[at as usize] != at {
            // Path halving: skips every other parent, which shortens later searches.
            let next = self.parents[at as usize];
            self.parents[at as usize] = self.parents[next as usize];
            at = self.parents[at as usize];
        }
        at as usize
    }

    /// Unites the sets of two members.
    pub(super) fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a.max(b)] = a.min(b) as u32;
    }
}
