//! Checks of the keys of the loss against one another.

use super::Config;
use crate::{Error, Result};

impl Config {
    /// Refuses combinations without a meaning.
    pub(super) fn check_loss(&self) -> Result<()> {
        if self.passage_negatives && !self.symmetric {
            let message = "has no effect where passages do not look for their queries; set symmetric = true as well";
            return Err(Error::config("passage_negatives", message));
        }
        for (key, is_set) in [("symmetric", self.symmetric), ("query_negatives", self.query_negatives)] {
            if is_set && !self.in_batch_negatives {
                let message = format!("makes negatives of other queries' positives or queries; take {key} away");
                return Err(Error::config("in_batch_negatives", format!("is false, but {key} {message}")));
            }
        }
        if !self.in_batch_negatives && self.negatives_per_query == Some(0) {
            let message = "is 0 and in_batch_negatives is false, so a query has no negative at all; set one of the two";
            return Err(Error::config("negatives_per_query", message));
        }
        let Some(dims) = &self.matryoshka_dims else {
            return match &self.matryoshka_weights {
                Some(_) => Err(Error::config("matryoshka_weights", "belongs to matryoshka_dims, which is not set")),
                None => Ok(()),
            };
        };
        let mut sorted = dims.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if dims.is_empty() || sorted.len() < dims.len() {
            return Err(Error::config(
                "matryoshka_dims",
                "must be a list of different numbers, such as [384, 128, 64]",
            ));
        }
        let n_weights = self.matryoshka_weights.as_ref().map_or(dims.len(), Vec::len);
        if n_weights != dims.len() {
            let message = format!("has {n_weights} weights for {} numbers of dimensions; give one each", dims.len());
            return Err(Error::config("matryoshka_weights", message));
        }
        Ok(())
    }
}
