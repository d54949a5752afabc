//! The datasets of a run as one source of texts.
//!
//! Languages, groups and texts are numbered on from dataset to dataset. With one dataset, all numbers are its own.

use xxhash_rust::xxh3::xxh3_128;

use super::catalog::{Catalog, Class, LangId, Role, TextSource};
use super::formats::DataSource;
use super::sampler::WeightedDataset;
use super::shard::{TokenCache, TokenizeSpec};

/// A dataset of a run before it is read.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetSource {
    /// Name in messages.
    pub name: String,
    /// Weight, above 0.
    pub weight: f64,
    /// Files and format.
    pub data: DataSource,
    /// How its texts become tokens.
    pub spec: TokenizeSpec,
}

/// All training data of a run; see the [module](self).
pub struct Datasets {
    members: Vec<Member>,
    catalog: Catalog,
}

struct Member {
    name: String,
    weight: f64,
    cache: TokenCache,
    /// The dataset's groups, with languages as numbered for all datasets.
    catalog: Catalog,
    /// The dataset's own number of each language, if it has it.
    own_langs: Vec<Option<LangId>>,
    /// The number among all datasets of each of its own languages.
    langs: Vec<LangId>,
    first_group: u64,
    first_text: u64,
}

impl Datasets {
    /// Combines caches, given with their names and weights; at least one.
    pub fn new(caches: Vec<(String, f64, TokenCache)>) -> Self {
        assert!(!caches.is_empty(), "a run has a dataset");
        let mut languages: Vec<String> =
            caches.iter().flat_map(|(_, _, cache)| cache.catalog().languages.iter().cloned()).collect();
        languages.sort();
        languages.dedup();
        let (mut first_group, mut first_text) = (0, 0);
        let mut members = Vec::with_capacity(caches.len());
        for (name, weight, cache) in caches {
            let own_langs: Vec<_> = languages.iter().map(|lang| number_of(lang, cache.catalog())).collect();
            let langs = numbers_among(&languages, cache.catalog());
            let catalog = renumbered(cache.catalog(), &languages, &langs);
            let (n_groups, n_texts) = (cache.n_groups(), cache.n_texts());
            members.push(Member { name, weight, cache, catalog, own_langs, langs, first_group, first_text });
            first_group += n_groups;
            first_text += n_texts;
        }
        let classes = members.iter().flat_map(|member| member.catalog.classes.iter().cloned()).collect();
        Datasets { members, catalog: Catalog { languages, classes } }
    }

    /// The datasets as a sampler takes them.
    pub fn weighted(&self) -> Vec<WeightedDataset<'_>> {
        let members = self.members.iter();
        members.map(|of| WeightedDataset { name: &of.name, catalog: &of.catalog, weight: of.weight }).collect()
    }

    /// Each dataset's cache.
    pub fn caches(&self) -> impl ExactSizeIterator<Item = &TokenCache> {
        self.members.iter().map(|member| &member.cache)
    }

    /// Name of a dataset.
    pub fn name(&self, dataset: usize) -> &str {
        &self.members[dataset].name
    }

    /// Identifies the content and its order; for one dataset it is its [`TokenCache::key`].
    pub fn key(&self) -> String {
        let keys: Vec<String> = self.caches().map(TokenCache::key).collect();
        match keys.as_slice() {
            [one] => one.clone(),
            all => format!("{:032x}", xxh3_128(all.concat().as_bytes())),
        }
    }

    /// The dataset that a group is from.
    fn member_of(&self, group: u64) -> &Member {
        &self.members[self.members.partition_point(|member| member.first_group <= group) - 1]
    }

    /// The dataset that a text is from, and its number there.
    fn locate(&self, text: u64) -> (&Member, u64) {
        let member = &self.members[self.members.partition_point(|member| member.first_text <= text) - 1];
        (member, text - member.first_text)
    }
}

impl TextSource for Datasets {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn texts(&self, group: u64, role: Role, lang: LangId) -> std::ops::Range<u64> {
        let member = self.member_of(group);
        let Some(lang) = member.own_langs[usize::from(lang)] else { return 0..0 };
        let texts = member.cache.texts(group - member.first_group, role, lang);
        member.first_text + texts.start..member.first_text + texts.end
    }

    fn tokens(&self, text: u64) -> &[u32] {
        let (member, text) = self.locate(text);
        member.cache.tokens(text)
    }

    fn hashes(&self, group: u64, role: Role) -> Vec<(LangId, u64)> {
        let member = self.member_of(group);
        let number = |(own, hash): (LangId, u64)| (member.langs[usize::from(own)], hash);
        member.cache.hashes(group - member.first_group, role).into_iter().map(number).collect()
    }

    fn groups_asking(&self, group: u64, query: u64) -> Vec<u64> {
        let member = self.member_of(group);
        let groups = member.cache.groups_asking(group - member.first_group, query).into_iter();
        groups.map(|group| member.first_group + group).collect()
    }

    /// Whether two datasets have one is not looked up.
    fn shares_texts(&self) -> bool {
        self.members.len() > 1 || self.members[0].cache.shares_texts()
    }

    fn group_of_negative(&self, text: u64) -> Option<u64> {
        let (member, text) = self.locate(text);
        member.cache.group_of_negative(text).map(|group| member.first_group + group)
    }

    fn text_hash(&self, text: u64) -> u64 {
        let (member, text) = self.locate(text);
        member.cache.text_hash(text)
    }

    fn teacher_score(&self, text: u64) -> Option<f32> {
        let (member, text) = self.locate(text);
        member.cache.teacher_score(text)
    }
}

/// The number of a language in a catalog.
fn number_of(lang: &String, catalog: &Catalog) -> Option<LangId> {
    catalog.languages.binary_search(lang).ok().map(|number| number as LangId)
}

/// The numbers of a catalog's languages among `languages`, which contain them.
fn numbers_among(languages: &[String], catalog: &Catalog) -> Vec<LangId> {
    let number = |name| languages.binary_search(name).expect("languages of all datasets") as LangId;
    catalog.languages.iter().map(number).collect()
}

/// A catalog with its languages numbered as in `languages`, where they have the numbers `langs`. Both lists ascend, so
/// the lists of the classes stay in order.
fn renumbered(catalog: &Catalog, languages: &[String], langs: &[LangId]) -> Catalog {
    let number = |lang: &LangId| langs[usize::from(*lang)];
    let class = |class: &Class| Class {
        n_groups: class.n_groups,
        query_langs: class.query_langs.iter().map(number).collect(),
        passage_langs: class.passage_langs.iter().map(number).collect(),
    };
    Catalog { languages: languages.to_vec(), classes: catalog.classes.iter().map(class).collect() }
}
