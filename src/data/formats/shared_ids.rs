//! Ids that stand at several questions.

use std::collections::HashMap;

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::Group;

/// Finds ids of the data that rows of different groups have, by hashes: 30 bytes an id.
#[derive(Default)]
pub struct SharedIds {
    /// Identity of the first row with each id, and whether another one has it, too.
    first_with: HashMap<u64, (u128, bool)>,
}

impl SharedIds {
    /// Looks at a row with an id that does not make its group by itself; `identity` is what does, hashed.
    pub fn add(&mut self, id: &str, identity: u128) {
        let (first, is_shared) = self.first_with.entry(xxh3_64(id.as_bytes())).or_insert((identity, false));
        *is_shared |= *first != identity;
    }

    /// Looks at a row as it was parsed.
    pub fn add_group(&mut self, group: &Group) {
        if let Some(identity) = &group.identity {
            self.add(&group.id, xxh3_128(identity.as_bytes()));
        }
    }

    /// Number of ids that several groups have.
    pub fn count(&self) -> u64 {
        self.first_with.values().filter(|(_, is_shared)| *is_shared).count() as u64
    }
}
