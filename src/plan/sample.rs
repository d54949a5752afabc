//! Lengths of data that has not been tokenized: a part of it is read, and its tokens are counted or, where reading the
//! tokenizer would take longer than a plan may, estimated from the characters.

use crate::config::Config;
use crate::data::batch::{Batch, NegativeRules};
use crate::data::bounds::BatchBounds;
use crate::data::catalog::{Catalog, LangId, Role, TextSource};
use crate::data::formats::{DataFormat, DataSource, Text};
use crate::data::sampler::{BatchKind, Row, SampledBatch};
use crate::data::shard::TokenizeSpec;
use crate::data::tokenize::TextTokenizer;
use crate::random::{below, hash};
use crate::{Error, Result};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// Bytes of the data that are read, of a format that is read row by row and of one that is read file by file.
const MOST_BYTES: u64 = 4 << 20;
const MOST_BYTES_OF_FILES: u64 = 64 << 20;
/// Texts that are taken from what was read.
const MOST_TEXTS: usize = 4096;
/// Tokenizer files up to this size are read: those of WordPiece are smaller, and quick. XLM-R's takes half a second.
const MOST_TOKENIZER_BYTES: u64 = 4 << 20;

/// Characters of a token: what XLM-R's vocabulary makes of XQuAD-R's questions, 3.2 (Arabic) to 4.3 (English), and of
/// Chinese ones, whose characters are words.
const CHARACTERS_PER_TOKEN: f64 = 3.8;
const IDEOGRAPHS_PER_TOKEN: f64 = 1.4;
/// Tokens that stand around a text.
const SPECIAL_TOKENS: usize = 2;

/// How tokens are counted.
enum Counting {
    Exact(Box<TextTokenizer>),
    ByCharacters { vocab_size: usize },
}

/// A text: its language and its tokens, which where they are estimated are all different ids.
type Tokens = (LangId, Vec<u32>);

/// Groups of data that has not been tokenized: those that were read, and how many they stand for.
pub struct Sample {
    /// Groups that all of the data has, estimated where not all was read.
    pub n_groups: f64,
    /// By group and role; the texts of each role by language.
    groups: Vec<[Vec<Tokens>; 3]>,
    /// The first text of each group, as all texts are numbered.
    first_texts: Vec<u64>,
    is_exact: bool,
    catalog: Catalog,
}

impl Sample {
    /// Reads a part of each dataset; `vocab_size` is the model's.
    ///
    /// # Errors
    /// Data that is not there or cannot be read.
    pub fn read(sources: &[(DataSource, TokenizeSpec)], tokenizer: &Path, vocab_size: usize) -> Result<Sample> {
        let len = std::fs::metadata(tokenizer).map_err(|e| Error::io("read", tokenizer, e))?.len();
        let counting = match len <= MOST_TOKENIZER_BYTES {
            true => Counting::Exact(TextTokenizer::from_file(tokenizer)?.into()),
            false => Counting::ByCharacters { vocab_size },
        };
        let mut sample = Sample {
            n_groups: 0.0,
            groups: Vec::new(),
            first_texts: Vec::new(),
            is_exact: matches!(counting, Counting::Exact(_)),
            catalog: Catalog { languages: Vec::new(), classes: Vec::new() },
        };
        for (source, spec) in sources {
            sample.add(source, spec, &counting)?;
        }
        let mut n = 0;
        for group in &sample.groups {
            sample.first_texts.push(n);
            n += group.iter().map(|texts| texts.len() as u64).sum::<u64>();
        }
        Ok(sample)
    }

    fn add(&mut self, source: &DataSource, spec: &TokenizeSpec, counting: &Counting) -> Result<()> {
        let data = source.resolve()?;
        let most = if data.format() == DataFormat::Squad { MOST_BYTES_OF_FILES } else { MOST_BYTES };
        let mut groups: Vec<[Vec<Text>; 3]> = Vec::new();
        let mut by_id = HashMap::new();
        let (mut n_bytes, mut n_texts) = (0, 0);
        for row in data.rows()? {
            let row = row?;
            let group = row.parse()?;
            n_bytes += row.n_bytes();
            let at = *by_id.entry(group.id).or_insert(groups.len());
            if at == groups.len() {
                groups.push(Default::default());
            }
            for (all, texts) in groups[at].iter_mut().zip([group.queries, group.positives, group.negatives]) {
                n_texts += texts.len();
                all.extend(texts);
            }
            if n_bytes >= most {
                break;
            }
        }
        if groups.is_empty() {
            return Err(Error::file(data.path(), "no training row in this data; check the path and the split"));
        }
        self.n_groups += groups.len() as f64 * (data.n_bytes() as f64 / n_bytes.max(1) as f64).max(1.0);
        let step = n_texts.div_ceil(MOST_TEXTS).max(1);
        for group in groups.into_iter().step_by(step) {
            let mut tokens: [Vec<Tokens>; 3] = Default::default();
            for (role, texts) in group.into_iter().enumerate() {
                let (prefix, max_len) = match role {
                    0 => (&spec.query_prefix, spec.query_max_len),
                    _ => (&spec.passage_prefix, spec.passage_max_len),
                };
                for Text { lang, text } in texts {
                    let lang = self.number(&lang);
                    tokens[role].push((lang, counting.tokens(prefix, &text, max_len)?));
                }
                tokens[role].sort_by_key(|&(lang, _)| lang);
            }
            self.groups.push(tokens);
        }
        Ok(())
    }

    fn number(&mut self, lang: &str) -> LangId {
        let languages = &mut self.catalog.languages;
        let number = languages.iter().position(|known| known == lang).unwrap_or_else(|| {
            languages.push(lang.to_owned());
            languages.len() - 1
        });
        number as LangId
    }

    /// About what no batch exceeds: batches of the longest groups.
    pub fn bounds(&self, config: &Config) -> BatchBounds {
        let longest = |texts: &[Tokens]| texts.iter().map(|(_, tokens)| tokens.len()).max().unwrap_or(0);
        let most_negatives = config.negatives_per_query.unwrap_or(usize::MAX);
        let n_negatives = |group: &[Vec<Tokens>; 3]| {
            let of_lang = group[2].chunk_by(|a, b| a.0 == b.0).map(<[Tokens]>::len).max().unwrap_or(0);
            of_lang.min(most_negatives)
        };
        let tokens_of = |group: &[Vec<Tokens>; 3]| {
            longest(&group[0]) + longest(&group[1]) + n_negatives(group) * longest(&group[2])
        };
        // Each group read stands for so many of the data.
        let copies = (self.n_groups / self.groups.len() as f64).ceil() as usize;
        let sum_of_largest = |mut of_groups: Vec<usize>| -> usize {
            of_groups.sort_unstable_by(|a, b| b.cmp(a));
            let of_rows = of_groups.iter().flat_map(|&number| std::iter::repeat_n(number, copies));
            of_rows.chain(std::iter::repeat(of_groups[0])).take(config.batch_size).sum()
        };
        let lens = || self.groups.iter().flatten().flatten().map(|(_, tokens)| tokens.len());
        BatchBounds {
            n_queries: config.batch_size,
            n_seqs: 2 * config.batch_size + sum_of_largest(self.groups.iter().map(n_negatives).collect()),
            n_tokens: sum_of_largest(self.groups.iter().map(tokens_of).collect()),
            shortest: lens().min().unwrap_or(1),
            longest: lens().max().unwrap_or(1),
        }
    }

    /// A batch of groups and languages drawn at random.
    ///
    /// # Errors
    /// As [`Batch::pack`].
    pub fn batch(&self, config: &Config, step: u64) -> Result<Batch> {
        let row = |row: u64| {
            let pick = hash(&[config.seed, step, row]);
            let group = below(pick, self.groups.len() as u64);
            let lang = |role: usize, salt: u64| {
                let texts = &self.groups[group as usize][role];
                texts[below(hash(&[pick, salt]), texts.len() as u64) as usize].0
            };
            Row { group, query_lang: lang(0, 1), passage_lang: lang(1, 2), pick }
        };
        let rows = (0..config.batch_size as u64).map(row).collect();
        let rules = NegativeRules { per_query: config.negatives_per_query, teacher_margin: None };
        Batch::pack(step, &SampledBatch { kind: BatchKind::CrossLingual, dataset: None, rows }, self, rules)
    }
}

impl Counting {
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

impl TextSource for Sample {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn texts(&self, group: u64, role: Role, lang: LangId) -> Range<u64> {
        let roles = &self.groups[group as usize];
        let texts = &roles[role as usize];
        let before: usize = roles[..role as usize].iter().map(Vec::len).sum();
        let first = self.first_texts[group as usize] + before as u64;
        let place = |of: LangId| first + texts.partition_point(|&(lang, _)| lang < of) as u64;
        place(lang)..place(lang + 1)
    }

    fn tokens(&self, text: u64) -> &[u32] {
        let group = self.first_texts.partition_point(|&first| first <= text) - 1;
        let at = (text - self.first_texts[group]) as usize;
        &self.groups[group].iter().flatten().nth(at).expect("a text's number").1
    }

    fn label(&self, text: u64) -> u64 {
        text
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
        let how = if self.is_exact { "tokenized" } else { "tokens estimated from their characters" };
        write!(f, "{} groups of about {:.0}, {how}; hbt prepare counts all", self.groups.len(), self.n_groups)
    }
}
