//! Description of a data set for the sampler: the number of groups, and the languages of each class of groups.
//!
//! Groups are numbered so that those with the same *signature* (the languages of their queries and of their positives)
//! follow one another. A catalog is therefore a short list of classes, whatever the number of groups, and the groups
//! that can serve a batch are a union of a few ranges.

use std::collections::BTreeSet;

use xxhash_rust::xxh3::xxh3_64;

/// Index into [`Catalog::languages`].
pub type LangId = u16;

/// Consecutively numbered groups that have the same signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Number of groups; their numbers follow those of the class before.
    pub n_groups: u64,
    /// Languages in which every group of the class has a query, ascending.
    pub query_langs: Vec<LangId>,
    /// Languages in which every group of the class has a positive, ascending.
    pub passage_langs: Vec<LangId>,
}

impl Class {
    /// Languages in which every group of the class has both a query and a positive, ascending.
    pub fn common_langs(&self) -> Vec<LangId> {
        let is_common = |lang: &LangId| self.passage_langs.binary_search(lang).is_ok();
        self.query_langs.iter().copied().filter(is_common).collect()
    }
}

/// The languages and classes of a data set, in the order in which its groups are numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// ISO 639-1 codes (`und` where the data names no language), ascending.
    pub languages: Vec<String>,
    /// Classes in group order.
    pub classes: Vec<Class>,
}

impl Catalog {
    /// Number of groups of all classes.
    pub fn n_groups(&self) -> u64 {
        self.classes.iter().map(|c| c.n_groups).sum()
    }

    /// Languages that the queries or positives of some group are in, ascending; a dataset of several may lack some of all.
    pub fn languages_in_use(&self) -> Vec<&str> {
        self.langs_in_use().into_iter().map(|lang| self.languages[usize::from(lang)].as_str()).collect()
    }

    /// [`Catalog::languages_in_use`], as numbers.
    pub fn langs_in_use(&self) -> BTreeSet<LangId> {
        let groups = self.classes.iter().filter(|class| class.n_groups > 0);
        groups.flat_map(|class| class.query_langs.iter().chain(&class.passage_langs)).copied().collect()
    }
}

/// Role of a text in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A question.
    Query,
    /// A passage that answers it.
    Positive,
    /// A passage that does not answer it, mined or written to be hard.
    Negative,
}

/// Hash of a text, without any prefix: what equal texts have in common, in all data.
pub fn text_hash(text: &str) -> u64 {
    xxh3_64(text.as_bytes())
}

/// Source of the texts for the batch packer: the memory-mapped token cache, or a stand-in for it in tests.
pub trait TextSource: Send + Sync {
    /// The languages and classes of the data set.
    fn catalog(&self) -> &Catalog;
    /// Numbers of the texts of one group in one role and language; empty if there are none.
    fn texts(&self, group: u64, role: Role, lang: LangId) -> std::ops::Range<u64>;
    /// Token ids of a text, prefix and special tokens included, truncated to its role's maximum length.
    fn tokens(&self, text: u64) -> &[u32];
    /// Language and [hash](TextSource::text_hash) of all texts of a group in a role, but for negatives.
    fn hashes(&self, group: u64, role: Role) -> Vec<(LangId, u64)>;
    /// All groups that have a query of this group, given by its hash, as a query word for word, in any language; itself,
    /// too. With several datasets those of the group's own.
    fn groups_asking(&self, group: u64, query: u64) -> Vec<u64>;
    /// A group that has this negative as a positive word for word, if there is one in its dataset.
    fn group_of_negative(&self, text: u64) -> Option<u64>;
    /// Whether two groups may have a text in common, as query or positive.
    fn shares_texts(&self) -> bool;
    /// 64-bit hash of the text itself: equal texts have equal hashes, whatever their group.
    fn text_hash(&self, text: u64) -> u64;
    /// Score that a teacher gave a passage for its group's query, if the data has one.
    fn teacher_score(&self, text: u64) -> Option<f32>;
}
