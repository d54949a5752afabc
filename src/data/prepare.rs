//! The contents of a data set: the report that `hbt prepare` prints.

use std::collections::BTreeMap;
use std::fmt;

use rayon::prelude::*;

use super::catalog::{Catalog, LangId, Role, TextSource};
use super::formats::Notes;
use super::shard::TokenCache;
use crate::error::counted;

/// Up to this many languages the directions are printed as a table; with more, the most frequent ones are listed.
const MAX_TABLE_LANGUAGES: usize = 16;
const N_TOP_DIRECTIONS: usize = 20;

const ROLES: [(Role, &str); 3] = [(Role::Query, "query"), (Role::Positive, "positive"), (Role::Negative, "negative")];

/// Statistics of a data set. `Display` prints them as tables.
#[derive(Clone, Debug, PartialEq)]
pub struct DataReport {
    /// Number of groups, the unit that a batch is drawn from.
    pub n_groups: u64,
    /// Number of rows in the data; several may make up one group.
    pub n_rows: u64,
    /// What reading the data left out, joined or mended.
    pub notes: Notes,
    /// Lengths by role and language; the language `None` holds those of a role that has several languages.
    pub lengths: Vec<Lengths>,
    /// Number of groups for each pair of languages.
    pub directions: Directions,
    /// Duplicates by role, queries first.
    pub duplicates: Vec<Duplicates>,
}

/// Lengths of the texts of one role in one language, in tokens with prefix and special tokens, before truncation.
#[derive(Clone, Debug, PartialEq)]
pub struct Lengths {
    /// Role of the texts.
    pub role: Role,
    /// Language; `None` means all together.
    pub lang: Option<String>,
    /// Number of texts.
    pub n_texts: u64,
    /// Mean length.
    pub mean: f64,
    /// The shortest length that half of the texts do not exceed.
    pub median: u32,
    /// The shortest length that 95 % of the texts do not exceed.
    pub p95: u32,
    /// Longest length.
    pub max: u32,
    /// Number of texts longer than the maximum length, which were truncated.
    pub n_truncated: u64,
}

/// Number of groups that can serve each pair of query language and passage language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directions {
    /// Languages, in the order of rows and columns.
    pub languages: Vec<String>,
    /// By query language and passage language, as indices into `languages`: groups with a query in the one and a positive
    /// in the other, where there are any.
    pub n_groups: BTreeMap<(LangId, LangId), u64>,
}

/// Texts of one role that occur in more than one group. Groups with one text that meet in a batch are not each other's
/// negatives; many such texts make training less effective.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicates {
    /// Role of the texts.
    pub role: Role,
    /// Number of different texts that more than one group has.
    pub n_texts: u64,
    /// Number of groups with such a text.
    pub n_groups: u64,
}

impl DataReport {
    /// Looks at every text of the cache.
    pub fn new(cache: &TokenCache) -> Self {
        let catalog = cache.catalog();
        DataReport {
            n_groups: catalog.n_groups(),
            n_rows: cache.n_rows(),
            notes: cache.notes().clone(),
            lengths: lengths(cache),
            directions: Directions::new(catalog),
            duplicates: ROLES.iter().map(|(role, _)| Duplicates::new(cache, *role)).collect(),
        }
    }

    /// Number of texts of a role in all languages.
    pub fn n_texts(&self, role: Role) -> u64 {
        self.lengths.iter().filter(|of| of.role == role && of.lang.is_some()).map(|of| of.n_texts).sum()
    }
}

impl Lengths {
    /// Share of truncated texts, 0 to 1.
    pub fn truncated_share(&self) -> f64 {
        self.n_truncated as f64 / self.n_texts.max(1) as f64
    }
}

/// Number of texts of each length, and of those that were truncated.
#[derive(Clone, Default)]
struct Histogram {
    n_texts: BTreeMap<u32, u64>,
    n_truncated: u64,
}

impl Histogram {
    fn add(&mut self, other: &Histogram) {
        for (len, n) in &other.n_texts {
            *self.n_texts.entry(*len).or_default() += n;
        }
        self.n_truncated += other.n_truncated;
    }

    /// The shortest length that a share of `percent` % of the texts does not exceed.
    fn percentile(&self, percent: u64) -> u32 {
        let n_texts: u64 = self.n_texts.values().sum();
        let rank = (n_texts * percent).div_ceil(100);
        let mut n_seen = 0;
        let found = self.n_texts.iter().find(|(_, n)| {
            n_seen += **n;
            n_seen >= rank
        });
        found.map_or(0, |(len, _)| *len)
    }

    fn lengths(&self, role: Role, lang: Option<String>) -> Lengths {
        let n_texts: u64 = self.n_texts.values().sum();
        let n_tokens: u64 = self.n_texts.iter().map(|(len, n)| u64::from(*len) * n).sum();
        Lengths {
            role,
            lang,
            n_texts,
            mean: n_tokens as f64 / n_texts.max(1) as f64,
            median: self.percentile(50),
            p95: self.percentile(95),
            max: self.n_texts.last_key_value().map_or(0, |(len, _)| *len),
            n_truncated: self.n_truncated,
        }
    }
}

fn lengths(cache: &TokenCache) -> Vec<Lengths> {
    type ByLang = BTreeMap<(Role, LangId), Histogram>;
    let count = |mut by_lang: ByLang, text: u64| {
        let info = cache.text_info(text);
        let histogram = by_lang.entry((info.role, info.lang)).or_default();
        *histogram.n_texts.entry(info.full_len).or_default() += 1;
        histogram.n_truncated += u64::from(info.full_len > info.len);
        by_lang
    };
    let merge = |mut all: ByLang, part: ByLang| {
        for (key, histogram) in part {
            all.entry(key).or_default().add(&histogram);
        }
        all
    };
    let by_lang = (0..cache.n_texts()).into_par_iter().fold(ByLang::new, count).reduce(ByLang::new, merge);
    let mut lengths = Vec::new();
    for (role, _) in ROLES {
        let of_role: Vec<_> = by_lang.range((role, 0)..=(role, LangId::MAX)).collect();
        let mut all = Histogram::default();
        for ((_, lang), histogram) in &of_role {
            lengths.push(histogram.lengths(role, Some(cache.catalog().languages[*lang as usize].clone())));
            all.add(histogram);
        }
        if of_role.len() > 1 {
            lengths.push(all.lengths(role, None));
        }
    }
    lengths
}

impl Directions {
    fn new(catalog: &Catalog) -> Self {
        let mut n_groups = BTreeMap::new();
        for class in &catalog.classes {
            for query_lang in &class.query_langs {
                for passage_lang in &class.passage_langs {
                    *n_groups.entry((*query_lang, *passage_lang)).or_insert(0) += class.n_groups;
                }
            }
        }
        Directions { languages: catalog.languages.clone(), n_groups }
    }
}

impl Duplicates {
    fn new(cache: &TokenCache, role: Role) -> Self {
        let texts_of_group = |group: u64| {
            let infos = cache.group_texts(group).map(|text| cache.text_info(text));
            infos.filter(|info| info.role == role).map(move |info| (info.hash, group))
        };
        let mut texts: Vec<(u64, u64)> = (0..cache.n_groups()).into_par_iter().flat_map_iter(texts_of_group).collect();
        texts.par_sort_unstable();
        // A group may have the same text in several languages.
        texts.dedup();
        let mut n_texts = 0;
        let mut groups = Vec::new();
        for same in texts.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
            n_texts += 1;
            groups.extend(same.iter().map(|(_, group)| *group));
        }
        groups.sort_unstable();
        groups.dedup();
        Duplicates { role, n_texts, n_groups: groups.len() as u64 }
    }
}

impl fmt::Display for DataReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [queries, positives, negatives] = ROLES.map(|(role, _)| self.n_texts(role));
        writeln!(f, "{} from {}", counted(self.n_groups, "group"), counted(self.n_rows, "row"))?;
        let queries = if queries == 1 { "1 query".to_owned() } else { format!("{queries} queries") };
        writeln!(f, "{queries}, {}, {}", counted(positives, "positive"), counted(negatives, "negative"))?;
        self.notes.lines().iter().try_for_each(|line| writeln!(f, "{line}"))?;
        writeln!(f, "\nLengths in tokens, with prefix and special tokens, before truncation")?;
        self.fmt_lengths(f)?;
        self.directions.fmt(f)?;
        if self.duplicates.iter().any(|of| of.n_texts > 0) {
            writeln!(f, "\nTexts that occur in more than one group")?;
            let rows = self.duplicates.iter().filter(|of| of.n_texts > 0);
            let rows = rows.map(|of| vec![name(of.role).to_string(), of.n_texts.to_string(), of.n_groups.to_string()]);
            fmt_table(f, 1, &["role", "texts", "groups"], rows.collect())?;
        }
        Ok(())
    }
}

impl DataReport {
    fn fmt_lengths(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |of: &Lengths| {
            vec![
                name(of.role).to_string(),
                of.lang.as_deref().unwrap_or("all").to_string(),
                of.n_texts.to_string(),
                format!("{:.1}", of.mean),
                of.median.to_string(),
                of.p95.to_string(),
                of.max.to_string(),
                of.n_truncated.to_string(),
                format!("{:.1} %", 100.0 * of.truncated_share()),
            ]
        };
        let header = ["role", "language", "texts", "mean", "median", "p95", "max", "truncated", "share"];
        fmt_table(f, 2, &header, self.lengths.iter().map(row).collect())
    }
}

impl fmt::Display for Directions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.languages.len() <= MAX_TABLE_LANGUAGES {
            writeln!(f, "\nGroups by direction: query language down, passage language across")?;
            let header: Vec<&str> = [""].into_iter().chain(self.languages.iter().map(String::as_str)).collect();
            let langs = 0..self.languages.len() as LangId;
            let rows = self.languages.iter().zip(langs.clone()).map(|(lang, query)| {
                let n_groups =
                    langs.clone().map(|passage| self.n_groups.get(&(query, passage)).unwrap_or(&0).to_string());
                [lang.clone()].into_iter().chain(n_groups).collect()
            });
            return fmt_table(f, 1, &header, rows.collect());
        }
        let name = |lang: LangId| self.languages[usize::from(lang)].as_str();
        let directions = self.n_groups.iter().filter(|(_, n)| **n > 0);
        let mut top: Vec<(u64, &str, &str)> =
            directions.map(|(&(query, passage), &n)| (n, name(query), name(passage))).collect();
        let n_directions = top.len();
        top.sort_by_key(|(n, query_lang, passage_lang)| (std::cmp::Reverse(*n), *query_lang, *passage_lang));
        top.truncate(N_TOP_DIRECTIONS);
        writeln!(f, "\nGroups by direction: the {} most frequent of {n_directions}", top.len())?;
        let rows = top.into_iter().map(|(n, query, passage)| vec![query.into(), passage.into(), n.to_string()]);
        fmt_table(f, 2, &["query", "passage", "groups"], rows.collect())
    }
}

fn name(role: Role) -> &'static str {
    ROLES[role as usize].1
}

/// Writes aligned columns: the first `n_names` to the left, numbers to the right.
fn fmt_table(f: &mut fmt::Formatter<'_>, n_names: usize, header: &[&str], rows: Vec<Vec<String>>) -> fmt::Result {
    let mut lines: Vec<Vec<String>> = vec![header.iter().map(|cell| cell.to_string()).collect()];
    lines.extend(rows);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    for line in &lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column < n_names {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        let text = cells.collect::<Vec<_>>().join("  ");
        writeln!(f, "{}", text.trim_end())?;
    }
    Ok(())
}
