//! The second pass over tokenized data: rows that share an id become one group, groups are numbered so that equal
//! signatures follow one another, and the texts' records are written in that order.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use rayon::prelude::*;

use super::build::{Spill, Tokenized};
use super::file::{Counts, GroupRecord, TextRecord};
use super::links::Links;
use super::{Meta, MetaClass};
use crate::data::catalog::{LangId, Role};
use crate::data::formats::{Note, Notes};

/// Data kept in memory for a row: 32 bytes, and 4 for its place in the order.
pub(super) struct RowEntry {
    pub(super) id_hash: [u64; 2],
    /// First text; every row has at least one.
    pub(super) first_text: u64,
    /// Length of the id in bytes; the id is right before the tokens of the first text.
    pub(super) id_len: u32,
    pub(super) has_positive: bool,
}

impl RowEntry {
    /// What rows of one group have in common.
    pub(super) fn identity(&self) -> u128 {
        u128::from(self.id_hash[0]) << 64 | u128::from(self.id_hash[1])
    }
}

/// A group before it has a number.
struct GroupEntry {
    /// Its first row, an index into the order of rows by id.
    run: u32,
    class: u32,
}

/// Separates query languages from passage languages in a signature; no language has this id.
const SEPARATOR: LangId = LangId::MAX;

/// Adds texts, groups, meta and checksums to the cache file, which is then whole.
pub(super) fn write_index(tokenized: Tokenized, dir: &Path, key: u128, mut notes: Notes) -> io::Result<()> {
    let Tokenized { mut out, n_words, texts, rows, languages, .. } = tokenized;
    let texts = texts.finish()?;
    let rows = SortedRows::new(rows, bytemuck::cast_slice(&texts), &languages);
    let (groups, classes) = rows.number_groups();
    let texts_of = |group: usize| rows.rows_of(groups[group].run).iter().flat_map(|row| rows.texts_of_row(*row));
    let links = Links::new(groups.len(), texts_of);

    out.align(8)?;
    let mut records = Spill::new(dir)?;
    let (mut n_texts, mut n_scores, mut n_unused) = (0, [0; 2], 0);
    let mut of_group = Vec::new();
    for (number, group) in groups.iter().enumerate() {
        rows.gather(group, &mut of_group);
        of_group.iter_mut().for_each(|text| text.link = links.link(number, text));
        out.write_all(bytemuck::cast_slice(&of_group))?;
        for (n_scores, role) in n_scores.iter_mut().zip([Role::Positive, Role::Negative]) {
            let scored = of_group.iter().filter(|text| text.role == role as u16 && !text.score.is_nan());
            *n_scores += scored.count() as u64;
        }
        n_unused += n_unused_negatives(&of_group);
        let (id_start, id_len) = rows.id(group);
        records.push(&GroupRecord { first_text: n_texts, id_start, id_len })?;
        n_texts += of_group.len() as u64;
    }
    records.push(&GroupRecord { first_text: n_texts, id_start: n_words, id_len: 0 })?;
    out.write_all(&records.finish()?)?;

    let mut sorted_languages = languages;
    sorted_languages.sort();
    let (n_rows, shares_texts) = (rows.rows.len() as u64, links.any_shared());
    notes.add(Note::JoinedRows, n_rows - groups.len() as u64);
    notes.add(Note::UnusedNegatives, n_unused);
    let meta = Meta { languages: sorted_languages, classes, n_rows, notes, n_scores, shares_texts };
    let meta = serde_json::to_vec(&meta)?;
    out.write_all(&meta)?;
    out.finish(key, Counts { n_words, n_texts, n_groups: groups.len() as u64, meta_len: meta.len() as u64 })
}

/// Number of negatives of a group that no row takes: a row's are in the language of its positive.
fn n_unused_negatives(texts: &[TextRecord]) -> u64 {
    let langs = |role: Role| texts.iter().filter(move |text| text.role == role as u16).map(|text| text.lang);
    // Texts of a role come language by language.
    let mut used: Vec<LangId> = langs(Role::Positive).collect();
    used.dedup();
    langs(Role::Negative).filter(|lang| used.binary_search(lang).is_err()).count() as u64
}

/// All rows, and an order in which rows with equal ids are neighbours.
struct SortedRows<'a> {
    rows: Vec<RowEntry>,
    order: Vec<u32>,
    texts: &'a [TextRecord],
    /// Final language id for each provisional one.
    lang_ids: Vec<LangId>,
}

impl<'a> SortedRows<'a> {
    fn new(rows: Vec<RowEntry>, texts: &'a [TextRecord], languages: &[String]) -> Self {
        let mut order: Vec<u32> = (0..rows.len() as u32).collect();
        order.par_sort_unstable_by_key(|&row| (rows[row as usize].id_hash, row));
        let mut by_name: Vec<usize> = (0..languages.len()).collect();
        by_name.sort_by_key(|&lang| &languages[lang]);
        let mut lang_ids = vec![0; languages.len()];
        for (id, lang) in by_name.into_iter().enumerate() {
            lang_ids[lang] = id as LangId;
        }
        SortedRows { rows, order, texts, lang_ids }
    }

    /// Rows of the group that starts at `run`, in the order of the data.
    fn rows_of(&self, run: u32) -> &[u32] {
        let rest = &self.order[run as usize..];
        let id = self.rows[rest[0] as usize].id_hash;
        let len = rest.iter().take_while(|&&row| self.rows[row as usize].id_hash == id).count();
        &rest[..len]
    }

    /// Start in `words` of the id of a group, and its length in bytes.
    fn id(&self, group: &GroupEntry) -> (u64, u64) {
        let row = &self.rows[self.order[group.run as usize] as usize];
        let id_len = u64::from(row.id_len);
        (self.texts[row.first_text as usize].start - id_len.div_ceil(size_of::<u32>() as u64), id_len)
    }

    fn texts_of_row(&self, row: u32) -> &'a [TextRecord] {
        let row = row as usize;
        let end = self.rows.get(row + 1).map_or(self.texts.len(), |next| next.first_text as usize);
        &self.texts[self.rows[row].first_text as usize..end]
    }

    /// Groups in their final order: by signature, then by first row; and the classes they are in.
    fn number_groups(&self) -> (Vec<GroupEntry>, Vec<MetaClass>) {
        let mut groups = Vec::new();
        let mut signatures: HashMap<Vec<LangId>, u32> = HashMap::new();
        let mut signature = Vec::new();
        let mut run = 0;
        while run < self.order.len() {
            let rows = self.rows_of(run as u32);
            self.signature(rows, &mut signature);
            let class = match signatures.get(&signature) {
                Some(class) => *class,
                None => {
                    let class = signatures.len() as u32;
                    *signatures.entry(signature.clone()).or_insert(class)
                }
            };
            groups.push(GroupEntry { run: run as u32, class });
            run += rows.len();
        }
        let classes = number_classes(&mut groups, signatures);
        groups.par_sort_unstable_by_key(|group| (group.class, self.order[group.run as usize]));
        (groups, classes)
    }

    /// Query languages and positives' languages of some rows, each ascending, with [`SEPARATOR`] between.
    fn signature(&self, rows: &[u32], signature: &mut Vec<LangId>) {
        signature.clear();
        for role in [Role::Query, Role::Positive] {
            let start = signature.len();
            let texts = rows.iter().flat_map(|row| self.texts_of_row(*row));
            signature.extend(texts.filter(|t| t.role == role as u16).map(|t| self.lang_ids[t.lang as usize]));
            signature[start..].sort_unstable();
            let mut kept = start;
            for at in start..signature.len() {
                if at == start || signature[at] != signature[kept - 1] {
                    signature[kept] = signature[at];
                    kept += 1;
                }
            }
            signature.truncate(kept);
            if role == Role::Query {
                signature.push(SEPARATOR);
            }
        }
    }

    /// The texts of a group by role, language and appearance, each once, with its first score.
    fn gather(&self, group: &GroupEntry, texts: &mut Vec<TextRecord>) {
        texts.clear();
        for row in self.rows_of(group.run) {
            let of_row = self.texts_of_row(*row).iter();
            texts.extend(of_row.map(|text| TextRecord { lang: self.lang_ids[usize::from(text.lang)], ..*text }));
        }
        // `start` grows in the order of appearance.
        texts.sort_unstable_by_key(|t| (t.role, t.lang, t.hash, t.start));
        texts.dedup_by(|next, kept| {
            let is_same = (next.role, next.lang, next.hash) == (kept.role, kept.lang, kept.hash);
            if is_same && kept.score.is_nan() {
                kept.score = next.score;
            }
            is_same
        });
        texts.sort_unstable_by_key(|t| (t.role, t.lang, t.start));
    }
}

/// Numbers the classes by their signatures, independently of their first appearance; `groups` have provisional numbers
/// before and final ones after.
fn number_classes(groups: &mut [GroupEntry], signatures: HashMap<Vec<LangId>, u32>) -> Vec<MetaClass> {
    let mut sorted: Vec<(Vec<LangId>, Vec<LangId>, u32)> = Vec::with_capacity(signatures.len());
    for (signature, class) in signatures {
        let mut langs = signature.split(|lang| *lang == SEPARATOR).map(<[LangId]>::to_vec);
        sorted.push((langs.next().unwrap_or_default(), langs.next().unwrap_or_default(), class));
    }
    sorted.sort_unstable();
    let mut rank = vec![0; sorted.len()];
    for (new, (_, _, old)) in sorted.iter().enumerate() {
        rank[*old as usize] = new as u32;
    }
    let mut n_groups = vec![0; sorted.len()];
    for group in groups {
        group.class = rank[group.class as usize];
        n_groups[group.class as usize] += 1;
    }
    sorted.into_iter().zip(n_groups).map(|((query, passage, _), n_groups)| (n_groups, query, passage)).collect()
}
