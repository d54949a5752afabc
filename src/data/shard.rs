//! The token cache: a data set tokenized once, in one memory-mapped file.
//!
//! The file's name is a hash of all that its content depends on: the data files and how they are read, the tokenizer,
//! the prefixes and maximum lengths. Changed data has another file, so a cache is never out of date, and a second run
//! opens it at once. The file gets its name only when it is whole and on the disk; a damaged one is built again. The
//! same input gives the same bytes, so two processes that build at once do each other no harm.

mod build;
mod file;
mod links;
mod merge;
mod scores;
mod verify;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

pub use self::scores::Scoring;

use self::file::{MappedFile, TextRecord, VERSION};
use super::catalog::{Catalog, Class, LangId, Role, TextSource};
use super::formats::{DataSource, Notes, Resolved};
use super::tokenize::TextTokenizer;
use crate::{Error, Result};

/// How texts become tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizeSpec {
    /// Text put before every query.
    pub query_prefix: String,
    /// Text put before every passage, positive or negative.
    pub passage_prefix: String,
    /// Longest query in tokens, prefix and special tokens included.
    pub query_max_len: usize,
    /// Longest passage in tokens, prefix and special tokens included.
    pub passage_max_len: usize,
}

/// A tokenized data set on disk; see the [module](self).
pub struct TokenCache {
    file: MappedFile,
    path: PathBuf,
    key: u128,
    catalog: Catalog,
    n_rows: u64,
    notes: Notes,
    n_scores: [u64; 2],
    shares_texts: bool,
    was_built: bool,
}

/// Data of a text in the cache, beside its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextInfo {
    /// Role in its group.
    pub role: Role,
    /// Language, an index into the catalog's.
    pub lang: LangId,
    /// Number of tokens kept, prefix and special tokens included.
    pub len: u32,
    /// Number of tokens before truncation; more than `len` if the text was truncated.
    pub full_len: u32,
    /// Hash of the text without its prefix.
    pub hash: u64,
}

/// All inputs of a cache.
struct Inputs<'a> {
    source: &'a DataSource,
    data: &'a Resolved,
    tokenizer: &'a TextTokenizer,
    spec: &'a TokenizeSpec,
}

impl Inputs<'_> {
    fn key(&self) -> Result<u128> {
        key(self.data, self.source, self.tokenizer.content_hash(), self.spec)
    }
}

/// `(n_groups, query_langs, passage_langs)` of a class of groups.
type MetaClass = (u64, Vec<LangId>, Vec<LangId>);

/// The small part of the file, kept as JSON.
#[derive(Serialize, Deserialize)]
struct Meta {
    languages: Vec<String>,
    classes: Vec<MetaClass>,
    n_rows: u64,
    notes: Notes,
    n_scores: [u64; 2],
    shares_texts: bool,
}

impl TokenCache {
    /// Opens the cache of this data, tokenizer and spec in `cache_dir`, building it first if it is not there. While
    /// building, `progress` is called from the calling thread with the bytes of data done and the total.
    ///
    /// # Errors
    /// Bad data, with its file and line; a maximum length without room for text; a cache directory that cannot be
    /// written or is full. Nothing is left behind then.
    pub fn open_or_build(
        source: &DataSource,
        tokenizer: &TextTokenizer,
        spec: &TokenizeSpec,
        cache_dir: &Path,
        progress: &dyn Fn(u64, u64),
    ) -> Result<TokenCache> {
        tokenizer.check_max_len("query_max_len", &spec.query_prefix, spec.query_max_len)?;
        tokenizer.check_max_len("passage_max_len", &spec.passage_prefix, spec.passage_max_len)?;
        let inputs = Inputs { source, data: &source.resolve()?, tokenizer, spec };
        let key = inputs.key()?;
        let path = path_of(cache_dir, key);
        if let Some(cache) = open(&path, key, spec)? {
            return Ok(cache.with_notes(inputs.data));
        }
        build::build(&inputs, key, &path, progress)?;
        let cache = open(&path, key, spec)?;
        let cache = cache.map(|cache| TokenCache { was_built: true, ..cache.with_notes(inputs.data) });
        cache.ok_or_else(|| Error::file(&path, "changed while it was written; free the disk of errors and try again"))
    }

    /// The cache that [`TokenCache::open_or_build`] would open without building, if it is there. It needs only the
    /// tokenizer's [hash](TextTokenizer::content_hash), since reading a tokenizer takes longer than all the rest.
    ///
    /// # Errors
    /// If the data cannot be read.
    pub fn find(
        source: &DataSource,
        tokenizer_hash: u128,
        spec: &TokenizeSpec,
        cache_dir: &Path,
    ) -> Result<Option<TokenCache>> {
        let data = source.resolve()?;
        let key = key(&data, source, tokenizer_hash, spec)?;
        Ok(open(&path_of(cache_dir, key), key, spec)?.map(|cache| cache.with_notes(&data)))
    }

    /// The [key](TokenCache::key) of the cache that [`TokenCache::open_or_build`] would open, whether it is there or not.
    ///
    /// # Errors
    /// If the data cannot be read.
    pub fn key_of(source: &DataSource, tokenizer_hash: u128, spec: &TokenizeSpec) -> Result<String> {
        key(&source.resolve()?, source, tokenizer_hash, spec).map(|key| format!("{key:032x}"))
    }

    /// Adds what there is to say about the files, which is not of the cache: others may be beside them now, and the part
    /// that is read may have been asked for or not.
    fn with_notes(mut self, data: &Resolved) -> Self {
        let mut notes = data.notes().clone();
        notes.extend(&self.notes);
        self.notes = notes;
        self
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Identifies the content: the same for the same data, tokenized in the same way, in any place.
    pub fn key(&self) -> String {
        format!("{:032x}", self.key)
    }

    /// Whether this call built the file instead of finding it.
    pub fn was_built(&self) -> bool {
        self.was_built
    }

    /// Number of rows in the data; several may make up one group.
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// What reading the data left out, joined or mended.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Number of positives and of negatives that a teacher has scored.
    pub fn n_scores(&self) -> [u64; 2] {
        self.n_scores
    }

    /// Number of texts of all groups, roles and languages.
    pub fn n_texts(&self) -> u64 {
        self.file.texts().len() as u64
    }

    /// Number of groups.
    pub fn n_groups(&self) -> u64 {
        self.file.groups().len() as u64 - 1
    }

    /// Languages of the positives, and whether there are negatives in each.
    pub fn passage_langs(&self) -> BTreeMap<&str, bool> {
        let name = |lang: LangId| self.catalog.languages[usize::from(lang)].as_str();
        let langs = self.catalog.classes.iter().flat_map(|class| &class.passage_langs);
        let mut langs: BTreeMap<&str, bool> = langs.map(|&lang| (name(lang), false)).collect();
        for text in self.file.texts().iter().filter(|text| text.role == Role::Negative as u16) {
            langs.entry(name(text.lang)).and_modify(|has_negatives| *has_negatives = true);
        }
        langs
    }

    /// Id of a group in the data, or `FILE:LINE` if it has none.
    pub fn group_id(&self, group: u64) -> &str {
        let record = &self.file.groups()[group as usize];
        let bytes: &[u8] = bytemuck::cast_slice(&self.file.words()[record.id_start as usize..]);
        std::str::from_utf8(&bytes[..record.id_len as usize]).expect("ids are written from strings and checksummed")
    }

    /// The records of a group's texts in a role.
    fn records(&self, group: u64, role: Role) -> &[TextRecord] {
        let all = self.group_texts(group);
        let texts = &self.file.texts()[all.start as usize..all.end as usize];
        let start = texts.partition_point(|text| text.role < role as u16);
        let len = texts[start..].partition_point(|text| text.role == role as u16);
        &texts[start..start + len]
    }

    /// Numbers of all texts of a group.
    pub fn group_texts(&self, group: u64) -> Range<u64> {
        let groups = self.file.groups();
        groups[group as usize].first_text..groups[group as usize + 1].first_text
    }

    /// Role, language, lengths and hash of a text.
    pub fn text_info(&self, text: u64) -> TextInfo {
        let TextRecord { hash, len, full_len, role, lang, .. } = self.file.texts()[text as usize];
        let role = [Role::Query, Role::Positive, Role::Negative][role as usize];
        TextInfo { role, lang, len, full_len, hash }
    }
}

impl TextSource for TokenCache {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn texts(&self, group: u64, role: Role, lang: LangId) -> Range<u64> {
        let all = self.group_texts(group);
        let texts = &self.file.texts()[all.start as usize..all.end as usize];
        let key = (role as u16, lang);
        let start = texts.partition_point(|text| (text.role, text.lang) < key);
        let len = texts[start..].partition_point(|text| (text.role, text.lang) == key);
        all.start + start as u64..all.start + (start + len) as u64
    }

    fn tokens(&self, text: u64) -> &[u32] {
        let record = &self.file.texts()[text as usize];
        &self.file.words()[record.start as usize..][..record.len as usize]
    }

    fn hashes(&self, group: u64, role: Role) -> Vec<(LangId, u64)> {
        self.records(group, role).iter().map(|text| (text.lang, text.hash)).collect()
    }

    fn groups_asking(&self, group: u64, query: u64) -> Vec<u64> {
        let mut groups = vec![group];
        let mut at = group;
        // The circle ascends but for one step, so that this ends whatever the file says.
        let mut has_turned = false;
        while let Some(next) = self.records(at, Role::Query).iter().find(|text| text.hash == query).map(|of| of.link) {
            let turns = next <= at;
            if next == group || (turns && has_turned) {
                break;
            }
            has_turned |= turns;
            groups.push(next);
            at = next;
        }
        groups
    }

    fn shares_texts(&self) -> bool {
        self.shares_texts
    }

    fn group_of_negative(&self, text: u64) -> Option<u64> {
        Some(self.file.texts()[text as usize].link).filter(|group| *group != links::NONE)
    }

    fn text_hash(&self, text: u64) -> u64 {
        self.file.texts()[text as usize].hash
    }

    fn teacher_score(&self, text: u64) -> Option<f32> {
        Some(self.file.texts()[text as usize].score).filter(|score| !score.is_nan())
    }
}

fn path_of(cache_dir: &Path, key: u128) -> PathBuf {
    cache_dir.join(format!("tokens-{key:032x}.cache"))
}

/// The cache at `path`; `None` if there is none, or it is not whole and sound.
fn open(path: &Path, key: u128, spec: &TokenizeSpec) -> Result<Option<TokenCache>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", path, e)),
    };
    let file = MappedFile::open(&file, path, key).map_err(|e| Error::io("read", path, e))?;
    let Some(file) = file else { return Ok(None) };
    let meta = serde_json::from_slice::<Meta>(file.meta()).ok();
    let Some(meta) = meta.filter(|meta| verify::is_sound(&file, meta, spec)) else { return Ok(None) };
    let Meta { languages, classes, n_rows, notes, n_scores, shares_texts } = meta;
    let class = |(n_groups, query_langs, passage_langs)| Class { n_groups, query_langs, passage_langs };
    let catalog = Catalog { languages, classes: classes.into_iter().map(class).collect() };
    let path = path.to_owned();
    Ok(Some(TokenCache { file, path, key, catalog, n_rows, notes, n_scores, shares_texts, was_built: false }))
}

/// Hash of all that the content of a cache depends on.
fn key(data: &Resolved, source: &DataSource, tokenizer_hash: u128, spec: &TokenizeSpec) -> Result<u128> {
    let TokenizeSpec { query_prefix, passage_prefix, query_max_len, passage_max_len } = spec;
    let mut hash = Xxh3::new();
    // Lengths come before contents, so that different inputs never give the same bytes.
    let mut add = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    let how = format!(
        "version {VERSION}, {}, split {}, {}, tokenizer {tokenizer_hash:032x}, lengths {query_max_len} {passage_max_len}, \
         {:?}",
        data.format(),
        data.split(),
        source.passage_unit,
        source.columns,
    );
    for text in [&how, query_prefix, passage_prefix] {
        add(text.as_bytes());
    }
    for (name, path) in data.files() {
        add(name.as_bytes());
        let blocks = hash_blocks(path).map_err(|e| Error::io("read", path, e))?;
        add(bytemuck::cast_slice(&blocks));
    }
    Ok(hash.digest128())
}

/// Hashes of a file's blocks, computed on all cores: the data is hashed at every start, and may be large.
fn hash_blocks(path: &Path) -> io::Result<Vec<u64>> {
    const BLOCK_LEN: u64 = 4 << 20;
    let len = File::open(path)?.metadata()?.len();
    let hash_block = |index: u64| -> io::Result<u64> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(index * BLOCK_LEN))?;
        let mut block = Vec::new();
        file.take(BLOCK_LEN).read_to_end(&mut block)?;
        Ok(xxh3_64(&block))
    };
    (0..len.div_ceil(BLOCK_LEN)).into_par_iter().map(hash_block).collect()
}
