//! The datasets of a run as one source of texts.
//!
//! Languages, groups and texts are numbered on from dataset to dataset. With one dataset, all numbers are its own. Groups that
//! are [held out](HeldOut) have no number.

mod held_out;

pub use held_out::HeldOut;

use std::cmp::Reverse;

use strsim::damerau_levenshtein;
use xxhash_rust::xxh3::xxh3_128;

use super::catalog::{Catalog, Class, LangId, Role, TextSource};
use super::formats::{DataSource, language};
use super::sampler::WeightedDataset;
use super::shard::{TokenCache, TokenizeSpec};
use crate::error::listed;
use crate::{Error, Result};

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
    /// Keys of the configuration by which some of the data is left out.
    left_out_by: Vec<&'static str>,
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
    /// Numbers in the cache of the groups that are in use, ascending; `None`: all are.
    kept: Option<Vec<u32>>,
}

impl Member {
    /// The number in the cache of a group of the dataset.
    fn in_cache(&self, group: u64) -> u64 {
        self.kept.as_ref().map_or(group, |kept| u64::from(kept[group as usize]))
    }

    /// The number among those of all datasets of a group of the cache, if it is in use.
    fn among_all(&self, in_cache: u64) -> Option<u64> {
        let own = match &self.kept {
            None => in_cache,
            Some(kept) => kept.binary_search_by_key(&in_cache, |&group| u64::from(group)).ok()? as u64,
        };
        Some(self.first_group + own)
    }
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
            let kept = None;
            members.push(Member { name, weight, cache, catalog, own_langs, langs, first_group, first_text, kept });
            first_group += n_groups;
            first_text += n_texts;
        }
        let classes = classes_of(&members);
        Datasets { members, catalog: Catalog { languages, classes }, left_out_by: Vec::new() }
    }

    /// The datasets as a sampler takes them.
    pub fn weighted(&self) -> Vec<WeightedDataset<'_>> {
        let left_out_by = &self.left_out_by;
        let members = self.members.iter();
        let weighted = members.map(|Member { name, weight, catalog, .. }| WeightedDataset {
            name,
            catalog,
            weight: *weight,
            left_out_by,
        });
        weighted.collect()
    }

    /// Each dataset's cache.
    pub fn caches(&self) -> impl ExactSizeIterator<Item = &TokenCache> {
        self.members.iter().map(|member| &member.cache)
    }

    /// Name of a dataset.
    pub fn name(&self, dataset: usize) -> &str {
        &self.members[dataset].name
    }

    /// Leaves languages out: no query and no passage is drawn in them.
    ///
    /// # Errors
    /// A language that the data does not have, or that is none; a dataset of which nothing is left.
    pub fn exclude(mut self, languages: &[String]) -> Result<Self> {
        let has = self.catalog.languages_in_use();
        let mut excluded = Vec::new();
        for name in languages {
            let code = language(name).map_err(|message| Error::config("exclude_languages", message))?;
            if !has.contains(&code.as_str()) {
                return Err(not_there(&code, &has));
            }
            excluded.extend(number_of(&code, &self.catalog));
        }
        for member in &mut self.members {
            for class in &mut member.catalog.classes {
                class.query_langs.retain(|lang| !excluded.contains(lang));
                class.passage_langs.retain(|lang| !excluded.contains(lang));
            }
            if member.catalog.classes.iter().all(|class| class.query_langs.is_empty() || class.passage_langs.is_empty())
            {
                let message = format!("leaves no query with a positive of {:?}; take it out of the data", member.name);
                return Err(Error::config("exclude_languages", message));
            }
        }
        self.catalog.classes = classes_of(&self.members);
        self.left_out_by.extend(Some("exclude_languages").filter(|_| !languages.is_empty()));
        Ok(self)
    }

    /// Identifies the content and its order; for one dataset of which nothing is held out it is its [`TokenCache::key`].
    pub fn key(&self) -> String {
        let kept = self.members.iter().filter_map(|member| member.kept.as_ref());
        let kept = kept.map(|kept| format!("{:032x}", xxh3_128(bytemuck::cast_slice(kept))));
        let keys: Vec<String> = self.caches().map(TokenCache::key).chain(kept).collect();
        match keys.as_slice() {
            [one] => one.clone(),
            all => format!("{:032x}", xxh3_128(all.concat().as_bytes())),
        }
    }

    /// The number of the dataset that a group is from.
    fn number_of_member(&self, group: u64) -> usize {
        self.members.partition_point(|member| member.first_group <= group) - 1
    }

    /// The dataset that a group is from, and its number in the cache.
    fn place_of(&self, group: u64) -> (&Member, u64) {
        let member = &self.members[self.number_of_member(group)];
        (member, member.in_cache(group - member.first_group))
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
        let (member, group) = self.place_of(group);
        let Some(lang) = member.own_langs[usize::from(lang)] else { return 0..0 };
        let texts = member.cache.texts(group, role, lang);
        member.first_text + texts.start..member.first_text + texts.end
    }

    fn tokens(&self, text: u64) -> &[u32] {
        let (member, text) = self.locate(text);
        member.cache.tokens(text)
    }

    fn hashes(&self, group: u64, role: Role) -> Vec<(LangId, u64)> {
        let (member, group) = self.place_of(group);
        let number = |(own, hash): (LangId, u64)| (member.langs[usize::from(own)], hash);
        member.cache.hashes(group, role).into_iter().map(number).collect()
    }

    fn groups_asking(&self, group: u64, query: u64) -> Vec<u64> {
        let (member, group) = self.place_of(group);
        let groups = member.cache.groups_asking(group, query).into_iter();
        groups.filter_map(|group| member.among_all(group)).collect()
    }

    /// Whether two datasets have one is not looked up.
    fn shares_texts(&self) -> bool {
        self.members.len() > 1 || self.members[0].cache.shares_texts()
    }

    fn group_of_negative(&self, text: u64) -> Option<u64> {
        let (member, text) = self.locate(text);
        member.cache.group_of_negative(text).and_then(|group| member.among_all(group))
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

/// The groups of all datasets, one after the other.
fn classes_of(members: &[Member]) -> Vec<Class> {
    members.iter().flat_map(|member| member.catalog.classes.iter().cloned()).collect()
}

/// The error about a language to leave out that the data, in the languages `has`, does not have.
fn not_there(code: &str, has: &[&str]) -> Error {
    let in_common = |known: &str| known.bytes().zip(code.bytes()).take_while(|(a, b)| a == b).count();
    let nearness = |known: &&str| (in_common(known), Reverse(damerau_levenshtein(known, code)));
    let near = has.iter().copied().filter(|known| in_common(known) > 0).max_by_key(nearness);
    let near = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
    let has: Vec<String> = has.iter().map(|code| (*code).to_owned()).collect();
    let message = format!("no query or positive of the data is in {code:?}, only in {}{near}", listed(&has));
    Error::config("exclude_languages", message)
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
