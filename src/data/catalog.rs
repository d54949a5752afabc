//! Description of a data set for the sampler: the number of groups, and the languages of each class of groups.
//!
//! Groups are numbered so that those with the same *signature* (the languages of their queries and of their positives)
//! follow one another. A catalog is therefore a short list of classes, whatever the number of groups, and the groups
//! that can serve a batch are a union of a few ranges.

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

/// Source of the texts for the batch packer: the memory-mapped token cache, or a stand-in for it in tests.
pub trait TextSource: Send + Sync {
    /// The languages and classes of the data set.
    fn catalog(&self) -> &Catalog;
    /// Numbers of the texts of one group in one role and language; empty if there are none.
    fn texts(&self, group: u64, role: Role, lang: LangId) -> std::ops::Range<u64>;
    /// Token ids of a text, prefix and special tokens included, truncated to its role's maximum length.
    fn tokens(&self, text: u64) -> &[u32];
    /// Label (class id) of a text, equal for texts that say the same: a query and the passages that answer it have one
    /// label in all languages, and in all groups that share half of their queries or positives. A negative that is one
    /// of these passages word for word has it too. Any other negative has a label of its own text.
    fn label(&self, text: u64) -> u64;
    /// 64-bit hash of the text itself: equal texts have equal hashes, whatever their group.
    fn text_hash(&self, text: u64) -> u64;
    /// Score that a teacher gave a passage for its group's query, if the data has one.
    fn teacher_score(&self, text: u64) -> Option<f32>;
}
