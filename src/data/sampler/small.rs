//! Languages that have fewer groups than a batch has rows.
//!
//! Such a language has the turns that its weight gives it. Its batches hold all of its groups and are filled up with
//! groups of the other small languages or, if these are too few, of all languages, each row in one language. So every
//! language's share of the batches is the configured one, and so is the share of all rows that the small languages have
//! together; which of them gives the rows that fill up goes by the number of their groups.
//!
//! The rows that fill up come in passes, of which a batch takes as many as a whole one has: those that are its own
//! language's are passed over.

use super::group_set::{ClassIndex, GroupSet};
use super::passes::Passes;
use super::{Use, refusal};
use crate::Result;
use crate::data::catalog::{Catalog, LangId};
use crate::data::sampler::SamplerConfig;
use crate::error::counted;
use crate::random::hash;

/// Languages that a note names; it counts the others.
const MOST_NAMED: usize = 8;

/// The small languages of a data set.
pub(super) struct SmallLangs {
    /// Ascending.
    langs: Vec<LangId>,
    /// Groups that fill up.
    fill: GroupSet,
    passes: Passes,
}

impl SmallLangs {
    /// Those among `langs`, which have the groups `by_lang`; `None` if there are none.
    ///
    /// # Errors
    /// If all languages together have too few groups for a batch.
    pub(super) fn find(
        catalog: &Catalog,
        config: &SamplerConfig,
        classes: &ClassIndex,
        langs: &[(LangId, GroupSet)],
    ) -> Result<Option<Self>> {
        let batch_size = config.batch_size as u64;
        let small: Vec<LangId> =
            langs.iter().filter(|(_, groups)| groups.len() < batch_size).map(|(lang, _)| *lang).collect();
        if small.is_empty() {
            return Ok(None);
        }
        let with = |langs: &[LangId]| {
            classes.select(|class| class.common_langs().iter().any(|lang| langs.binary_search(lang).is_ok()))
        };
        let mut fill = with(&small);
        if fill.len() < batch_size {
            fill = with(&langs.iter().map(|(lang, _)| *lang).collect::<Vec<_>>());
        }
        if fill.len() < batch_size {
            return Err(refusal::too_few_monolingual(catalog, config, langs.len(), fill.len()));
        }
        let key = hash(&[config.seed, Use::Fill as u64]);
        let passes = Passes::new(fill.len(), batch_size, key);
        Ok(Some(SmallLangs { langs: small, fill, passes }))
    }

    /// Whether a language is small.
    pub(super) fn has(&self, lang: LangId) -> bool {
        self.langs.binary_search(&lang).is_ok()
    }

    /// The first `n` groups that fill up batch number `turn` of all small languages, none of them among `own`.
    pub(super) fn fill(&self, turn: u64, n: u64, own: &GroupSet) -> Vec<u64> {
        let groups = self.passes.batch(turn).into_iter().map(|index| self.fill.group(index));
        groups.filter(|group| !own.contains(*group)).take(n as usize).collect()
    }

    /// What is said of them once.
    pub(super) fn note(&self, catalog: &Catalog, config: &SamplerConfig) -> String {
        let name = |lang: &LangId| catalog.languages[usize::from(*lang)].as_str();
        let mut names: Vec<&str> = self.langs.iter().take(MOST_NAMED).map(name).collect();
        let more = format!("{} more", self.langs.len().saturating_sub(MOST_NAMED));
        if self.langs.len() > MOST_NAMED {
            names.push(&more);
        }
        let (n, batch_size) = (counted(self.langs.len() as u64, "language"), config.batch_size);
        format!(
            "{n} with fewer groups than the {batch_size} rows of a batch ({}): their monolingual batches are filled up with \
             rows in other languages (exclude_languages leaves languages out)",
            names.join(", ")
        )
    }
}
