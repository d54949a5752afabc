//! Sets that are joined one with another: union-find.

/// A partition of `0..n`, at first into sets of one.
pub(super) struct UnionFind {
    /// Another member of the same set, or itself: the one that stands for the set.
    parents: Vec<u32>,
}

impl UnionFind {
    /// Every member by itself; at most 2^32 of them.
    pub(super) fn new(n: usize) -> Self {
        assert!(u32::try_from(n).is_ok(), "more than 4,294,967,295 members");
        UnionFind { parents: (0..n as u32).collect() }
    }

    /// The member that stands for the set that `member` is in: its least.
    pub(super) fn root(&mut self, member: usize) -> usize {
        let mut at = member as u32;
        while self.parents[at as usize] != at {
            // Halves the way for whoever comes next.
            let next = self.parents[at as usize];
            self.parents[at as usize] = self.parents[next as usize];
            at = self.parents[at as usize];
        }
        at as usize
    }

    /// Makes the sets of two members one.
    pub(super) fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a.max(b)] = a.min(b) as u32;
    }
}
