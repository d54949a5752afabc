//! The ids of a corpus' documents, as far as they are still needed.

use super::Scored;
use crate::Result;
use crate::dist::Peers;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

/// Ids of documents by number: of all that came of late, and of the earlier ones that are still in the running.
#[derive(Default)]
pub struct Ids {
    /// Number of the next document.
    next: u32,
    kept: HashMap<u32, Box<str>>,
    /// Number of the first document in `recent`.
    first: u32,
    /// Ids, one behind the other.
    recent: String,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl Ids {
    pub fn push(&mut self, id: &str) {
        self.recent.push_str(id);
        self.ends.push(self.recent.len());
        self.next += 1;
    }

    /// Number of documents.
    pub fn n(&self) -> u32 {
        self.next
    }

    /// Bytes of the ids that came of late.
    pub fn n_bytes(&self) -> usize {
        self.recent.len()
    }

    pub fn get(&self, number: u32) -> &str {
        let Some(at) = number.checked_sub(self.first) else { return &self.kept[&number] };
        let at = at as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.recent[start..self.ends[at]]
    }

    /// The order of a ranking.
    pub fn rank(&self, &(a, of_a): &Scored, &(b, of_b): &Scored) -> Ordering {
        // Not the total order, in which zeros of different signs differ.
        b.partial_cmp(&a)
            .unwrap_or(Ordering::Equal)
            .then_with(|| self.get(of_b).cmp(self.get(of_a)))
            .then(of_b.cmp(&of_a))
    }

    /// Forgets all documents but these.
    pub fn keep(&mut self, numbers: HashSet<u32>) {
        self.kept = numbers.into_iter().map(|number| (number, self.get(number).into())).collect();
        self.first = self.next;
        self.recent.clear();
        self.ends.clear();
    }

    /// The ids of the documents that any of `peers` has found, of which these are `own`.
    pub fn of_all(&self, peers: &Peers, own: HashSet<u32>) -> Result<Ids> {
        let mut bytes = Vec::new();
        for number in own {
            let id = self.get(number);
            bytes.extend([number, id.len() as u32].map(u32::to_le_bytes).as_flattened());
            bytes.extend_from_slice(id.as_bytes());
        }
        let mut kept = HashMap::new();
        for of_rank in peers.all_gather_bytes(&bytes)? {
            let mut rest = &of_rank[..];
            while let Some((head, more)) = rest.split_first_chunk::<8>() {
                let [number, len] = [0, 4].map(|at| u32::from_le_bytes([0, 1, 2, 3].map(|i| head[at + i])));
                let (id, more) = more.split_at(len as usize);
                kept.insert(number, String::from_utf8_lossy(id).into());
                rest = more;
            }
        }
        Ok(Ids { next: self.next, kept, first: self.next, ..Ids::default() })
    }
}
