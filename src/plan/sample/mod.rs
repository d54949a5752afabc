//! Lengths of data that is not tokenized yet: all of it or a part is read, and its tokens are counted or, if reading
//! the tokenizer would take longer than a plan may, estimated from the number of characters.

mod read;

use super::numbers::count;
use crate::data::bounds::GroupSizes;
use crate::data::catalog::{Catalog, Class, LangId, Role, TextSource};
use crate::data::datasets::DatasetSource;
use crate::data::formats::{Group, Text, language};
use crate::data::sampler;
use crate::data::shard::TokenizeSpec;
use crate::data::tokenize::TextTokenizer;
use crate::random::hash;
use crate::train::Negatives;
use crate::{Error, Result};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// Most bytes of data that are read whole, of formats that are read row by row; all datasets together.
const MOST_BYTES: u64 = 32 << 20;
/// Most texts used of those that were read: to be tokenized, or to have their characters counted.
const MOST_TEXTS: [usize; 2] = [4096, 1 << 16];
/// Size up to which tokenizer files are read: WordPiece's are smaller, and quick. XLM-R's takes half a second.
const MOST_TOKENIZER_BYTES: u64 = 4 << 20;

/// Characters of a token: XLM-R's vocabulary gives XQuAD-R's questions 3.2 (Arabic) to 4.3 (English). Also used for
/// Chinese, whose characters are words.
const CHARACTERS_PER_TOKEN: f64 = 3.8;
const IDEOGRAPHS_PER_TOKEN: f64 = 1.4;
/// Special tokens around a text.
const SPECIAL_TOKENS: usize = 2;

/// Method of counting tokens.
enum Counting {
    Exact(Box<TextTokenizer>),
    ByCharacters { vocab_size: usize },
}

/// A text: its language and its token ids, which are all different if they are estimated.
type Tokens = (LangId, Vec<u32>);

/// Data that is not tokenized yet, represented by a few of its groups. The numbers of groups in the
/// [catalog](TextSource::catalog), and those that a sampler draws, are those of all groups, real or estimated; each
/// group has the texts of one of the few.
pub struct Sample {
    members: Vec<Member>,
    catalog: Catalog,
    /// Texts by group and role; those of each role by language.
    groups: Vec<[Vec<Tokens>; 3]>,
    /// Number of each group's first text among all texts.
    first_texts: Vec<u64>,
    counts_tokens: bool,
    /// Whether all rows were read.
    is_all: bool,
    /// Whether the number of groups is an upper bound.
    is_at_most: bool,
    /// Whether two groups may have a text in common.
    shares_texts: bool,
    /// Estimated numbers of queries and passages that are held out to evaluate on.
    held_out: Option<[usize; 2]>,
    /// Keys of the configuration by which some of the data is left out.
    left_out_by: Vec<&'static str>,
}

/// What a run takes of its data: by default all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part<'a> {
    /// Languages that it leaves out.
    pub excluded: &'a [String],
    /// Share of the groups that it holds out to evaluate on, from 0 to below 1.
    pub held_out: f64,
}

impl Part<'_> {
    fn exclude(&self, group: &mut Group) {
        let is_taken = |text: &Text| !self.excluded.iter().any(|code| language(code).as_deref() == Ok(&text.lang));
        [&mut group.queries, &mut group.positives].into_iter().for_each(|texts| texts.retain(is_taken));
    }

    /// The keys that say so.
    fn keys(&self) -> Vec<&'static str> {
        let keys = [("exclude_languages", !self.excluded.is_empty()), ("eval_fraction", self.held_out > 0.0)];
        keys.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key).collect()
    }
}

/// One of the datasets.
struct Member {
    name: String,
    weight: f64,
    catalog: Catalog,
    /// For each class its first group number, and the range of `groups` that have its texts.
    classes: Vec<(u64, Range<usize>)>,
    /// Numbers of positives and negatives read that have a teacher's score.
    n_scores: [u64; 2],
    /// Whether any negative read is in a language of the positives.
    has_negatives: bool,
}

impl Sample {
    /// Reads each dataset or a part of it, and takes of it what the run does; `vocab_size` is the model's.
    ///
    /// # Errors
    /// If data does not exist or cannot be read.
    pub fn read(sources: &[DatasetSource], part: &Part, tokenizer: &Path, vocab_size: usize) -> Result<Sample> {
        let len = std::fs::metadata(tokenizer).map_err(|e| Error::io("read", tokenizer, e))?.len();
        let counting = match len <= MOST_TOKENIZER_BYTES {
            true => Counting::Exact(TextTokenizer::from_file(tokenizer)?.into()),
            false => Counting::ByCharacters { vocab_size },
        };
        let of_each = MOST_BYTES / sources.len().max(1) as u64;
        let mut samples: Vec<read::DatasetSample> =
            sources.iter().map(|source| read::DatasetSample::read(&source.data, of_each)).collect::<Result<_>>()?;
        samples.iter_mut().flat_map(|dataset| &mut dataset.groups).for_each(|group| part.exclude(group));
        let groups = || samples.iter().flat_map(|dataset| &dataset.groups);
        let texts = || groups().flat_map(|group| [&group.queries, &group.positives, &group.negatives]).flatten();
        let languages: BTreeSet<&str> = texts().map(|text| text.lang.as_str()).collect();
        let languages: Vec<String> = languages.into_iter().map(str::to_owned).collect();
        let step = texts().count().div_ceil(counting.most_texts()).max(1);
        let mut sample = Sample {
            members: Vec::new(),
            catalog: Catalog { languages, classes: Vec::new() },
            groups: Vec::new(),
            first_texts: Vec::new(),
            counts_tokens: matches!(counting, Counting::Exact(_)),
            is_all: samples.iter().all(|dataset| dataset.is_all),
            is_at_most: samples.iter().any(|dataset| dataset.is_at_most),
            // Whether two datasets share any is not looked up, nor can it be seen in a part of one.
            held_out: None,
            left_out_by: part.keys(),
            shares_texts: samples.len() > 1 || samples.iter().any(|dataset| !dataset.is_all || dataset.shares_texts()),
        };
        for (source, dataset) in sources.iter().zip(samples) {
            sample.add(source, dataset, step, &counting)?;
        }
        sample.hold_out(part.held_out);
        let mut n = 0;
        for group in &sample.groups {
            sample.first_texts.push(n);
            n += group.iter().map(|texts| texts.len() as u64).sum::<u64>();
        }
        Ok(sample)
    }

    /// Adds a dataset: its classes with the numbers of all its groups, and the texts of every `step`-th group.
    fn add(
        &mut self,
        source: &DatasetSource,
        dataset: read::DatasetSample,
        step: usize,
        counting: &Counting,
    ) -> Result<()> {
        let languages = &self.catalog.languages;
        let number = |lang: &String| languages.binary_search(lang).expect("languages of all texts") as LangId;
        let langs = |texts: &[Text]| -> Vec<LangId> {
            texts.iter().map(|text| number(&text.lang)).collect::<BTreeSet<_>>().into_iter().collect()
        };
        let mut by_signature: BTreeMap<[Vec<LangId>; 2], Vec<&Group>> = BTreeMap::new();
        for group in &dataset.groups {
            by_signature.entry([langs(&group.queries), langs(&group.positives)]).or_default().push(group);
        }
        let mut classes = Vec::with_capacity(by_signature.len());
        let (mut next, mut ranges) = (self.catalog.n_groups(), Vec::with_capacity(by_signature.len()));
        for ([query_langs, passage_langs], groups) in by_signature {
            let n_groups = if dataset.is_all {
                groups.len() as u64
            } else {
                (groups.len() as f64 * dataset.copies).round() as u64
            };
            let first = self.groups.len();
            let kept: Vec<&Group> = groups.into_iter().step_by(step).collect();
            let tokens: Vec<Result<_>> =
                kept.par_iter().map(|group| counting.group(group, &source.spec, &number)).collect();
            self.groups.extend(tokens.into_iter().collect::<Result<Vec<_>>>()?);
            ranges.push((next, first..self.groups.len()));
            classes.push(Class { n_groups, query_langs, passage_langs });
            next += n_groups;
        }
        let catalog = Catalog { languages: languages.clone(), classes };
        let is_positives = |lang: &LangId| catalog.classes.iter().any(|class| class.passage_langs.contains(lang));
        let negatives = dataset.groups.iter().flat_map(|group| &group.negatives);
        let has_negatives = negatives.map(|text| number(&text.lang)).collect::<BTreeSet<_>>().iter().any(is_positives);
        self.catalog.classes.extend(catalog.classes.iter().cloned());
        self.members.push(Member {
            name: source.name.clone(),
            weight: source.weight,
            catalog,
            classes: ranges,
            n_scores: dataset.n_scores,
            has_negatives,
        });
        Ok(())
    }

    /// Takes a share of all groups out of the numbers of groups.
    fn hold_out(&mut self, share: f64) {
        if share == 0.0 {
            return;
        }
        let n_texts = |role: usize| self.groups.iter().map(|roles| roles[role].len()).sum::<usize>() as f64;
        let held_out = share * self.catalog.n_groups() as f64 / self.groups.len().max(1) as f64;
        self.held_out = Some([n_texts(0), n_texts(1) + n_texts(2)].map(|n| (held_out * n).ceil() as usize));
        let mut next = 0;
        for Member { catalog, classes, .. } in &mut self.members {
            for (class, (first, _)) in catalog.classes.iter_mut().zip(classes) {
                class.n_groups = (class.n_groups as f64 * (1.0 - share)).ceil() as u64;
                *first = next;
                next += class.n_groups;
            }
        }
        self.catalog.classes = self.members.iter().flat_map(|member| member.catalog.classes.iter().cloned()).collect();
    }

    /// Estimated numbers of queries and passages that are held out to evaluate on, if any are.
    pub fn held_out(&self) -> Option<[usize; 2]> {
        self.held_out
    }

    /// The datasets as a sampler takes them.
    pub fn weighted(&self) -> Vec<sampler::WeightedDataset<'_>> {
        let left_out_by = &self.left_out_by;
        let members = self.members.iter();
        let weighted = members.map(|Member { name, weight, catalog, .. }| sampler::WeightedDataset {
            name,
            catalog,
            weight: *weight,
            left_out_by,
        });
        weighted.collect()
    }

    /// Whether all rows were read, so that only lengths are estimated.
    pub fn is_all(&self) -> bool {
        self.is_all
    }

    /// Whether the number of groups is an upper bound, because unread rows may belong to groups that were read.
    pub fn is_at_most(&self) -> bool {
        self.is_at_most
    }

    /// Estimated sizes of groups of which a batch takes at most `max_negatives` negatives (`None`: all).
    pub fn sizes(&self, max_negatives: Option<usize>) -> GroupSizes {
        let mut sizes = GroupSizes::none(max_negatives, self.shares_texts);
        for (class, (_, at_hand)) in self.members.iter().flat_map(|of| of.catalog.classes.iter().zip(&of.classes)) {
            // Of the n groups of a class, the i-th of the k sampled ones stands for those whose number times k / n
            // rounds down to i.
            let first = |i: usize| (i as u64 * class.n_groups).div_ceil(at_hand.len() as u64);
            for (i, group) in self.groups[at_hand.clone()].iter().enumerate() {
                let roles = [Role::Query, Role::Positive, Role::Negative].into_iter().zip(group);
                let texts =
                    roles.flat_map(|(role, texts)| texts.iter().map(move |(lang, ids)| (role, *lang, ids.len())));
                sizes.add(first(i + 1) - first(i), texts);
            }
        }
        sizes
    }

    /// Index of the sampled group that has the texts of a group.
    fn at_hand(&self, group: u64) -> usize {
        let member = self.members.partition_point(|member| member.classes[0].0 <= group) - 1;
        let Member { catalog, classes, .. } = &self.members[member];
        let class = classes.partition_point(|(first, _)| *first <= group) - 1;
        let (first, at_hand) = &classes[class];
        at_hand.start + ((group - first) * at_hand.len() as u64 / catalog.classes[class].n_groups) as usize
    }
}

impl Counting {
    fn most_texts(&self) -> usize {
        match self {
            Counting::Exact(_) => MOST_TEXTS[0],
            Counting::ByCharacters { .. } => MOST_TEXTS[1],
        }
    }

    /// The texts of a group by role, by language, and in the order of the data, each once.
    fn group(
        &self,
        group: &Group,
        spec: &TokenizeSpec,
        number: &impl Fn(&String) -> LangId,
    ) -> Result<[Vec<Tokens>; 3]> {
        let mut tokens: [Vec<Tokens>; 3] = Default::default();
        for (role, texts) in [&group.queries, &group.positives, &group.negatives].into_iter().enumerate() {
            let (prefix, max_len) = match role {
                0 => (&spec.query_prefix, spec.query_max_len),
                _ => (&spec.passage_prefix, spec.passage_max_len),
            };
            let mut seen = HashSet::new();
            for Text { lang, text, instruction } in texts.iter().filter(|text| seen.insert(*text)) {
                let prefix = instruction.as_ref().unwrap_or(prefix);
                tokens[role].push((number(lang), self.tokens(prefix, text, max_len)?));
            }
            tokens[role].sort_by_key(|&(lang, _)| lang);
        }
        Ok(tokens)
    }

    fn tokens(&self, prefix: &str, text: &str, max_len: usize) -> Result<Vec<u32>> {
        match self {
            Counting::Exact(tokenizer) => Ok(tokenizer.encode(prefix, text, max_len)?.ids),
            Counting::ByCharacters { vocab_size } => {
                let is_ideograph = |c: char| matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}');
                let n = prefix.chars().chain(text.chars()).count();
                let n_ideographs = text.chars().filter(|&c| is_ideograph(c)).count();
                let n_tokens =
                    (n - n_ideographs) as f64 / CHARACTERS_PER_TOKEN + n_ideographs as f64 / IDEOGRAPHS_PER_TOKEN;
                let len = (n_tokens.ceil() as usize + SPECIAL_TOKENS).min(max_len);
                let first = hash(&[text.len() as u64, n as u64, u64::from(text.as_bytes()[text.len() / 2])]);
                Ok((0..len as u64).map(|i| ((first.wrapping_add(i)) % *vocab_size as u64) as u32).collect())
            }
        }
    }
}

impl Negatives for Sample {
    fn n_scores(&self) -> Vec<[u64; 2]> {
        self.members.iter().map(|member| member.n_scores).collect()
    }

    fn has_negatives(&self) -> bool {
        self.members.iter().any(|member| member.has_negatives)
    }
}

impl TextSource for Sample {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn texts(&self, group: u64, role: Role, lang: LangId) -> Range<u64> {
        let group = self.at_hand(group);
        let roles = &self.groups[group];
        let texts = &roles[role as usize];
        let before: usize = roles[..role as usize].iter().map(Vec::len).sum();
        let first = self.first_texts[group] + before as u64;
        let place = |of: LangId| first + texts.partition_point(|&(lang, _)| lang < of) as u64;
        place(lang)..place(lang + 1)
    }

    fn tokens(&self, text: u64) -> &[u32] {
        let group = self.first_texts.partition_point(|&first| first <= text) - 1;
        let at = (text - self.first_texts[group]) as usize;
        &self.groups[group].iter().flatten().nth(at).expect("a text's number").1
    }

    // Who answers whom does not change the size of a step.
    fn hashes(&self, _: u64, _: Role) -> Vec<(LangId, u64)> {
        Vec::new()
    }

    fn groups_asking(&self, group: u64, _: u64) -> Vec<u64> {
        vec![group]
    }

    fn shares_texts(&self) -> bool {
        self.shares_texts
    }

    fn group_of_negative(&self, _: u64) -> Option<u64> {
        None
    }

    fn text_hash(&self, text: u64) -> u64 {
        text
    }

    fn teacher_score(&self, _: u64) -> Option<f32> {
        None
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = match (self.is_all, self.is_at_most) {
            (true, _) => "",
            (false, true) => "at most ",
            (false, false) => "about ",
        };
        let n_groups = self.catalog.n_groups();
        let n_read = n_groups.min(self.groups.len() as u64);
        let [n_read, n_groups] = [n_read, n_groups].map(|n| count(n as f64));
        let how = if self.counts_tokens { "tokenized" } else { "tokens estimated from their characters" };
        write!(f, "{n_read} groups of {about}{n_groups}, {how}; hbt prepare counts all")
    }
}
