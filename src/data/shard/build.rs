//! Building a token cache: rows are read, parsed and tokenized a chunk at a time, and large data goes to disk at once.
//! About 50 bytes a row stay in memory, 30 more if it has an id, and 16 a query and a positive once groups are linked
//! (`links.rs`).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bytemuck::Pod;
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_128;

use super::file::{BlockWriter, TextRecord};
use super::merge::{RowEntry, write_index};
use super::{Inputs, TokenizeSpec};
use crate::data::catalog::{LangId, Role, text_hash};
use crate::data::formats::{Note, Notes, Resolved, Row, Rows, SharedIds, Text, without_positive};
use crate::data::tokenize::{Encoded, TextTokenizer};
use crate::files::SharedFile;
use crate::mapped::Mapped;
use crate::{Error, Result};

/// Rows of a chunk: enough to keep many cores busy, and few enough for little memory.
const CHUNK_ROWS: usize = 4096;
const CHUNK_BYTES: u64 = 8 << 20;

/// Builds the cache for `inputs` at `path`. Nothing appears there unless it is whole.
pub(super) fn build(inputs: &Inputs, key: u128, path: &Path, progress: &dyn Fn(u64, u64)) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    create_private(dir).map_err(|e| Error::io("create", dir, e))?;
    let file = SharedFile::create(dir, mode_of(inputs.data)).map_err(|e| Error::io("write", dir, e))?;
    let out = BlockWriter::new(file.as_file()).map_err(|e| Error::io("write", path, e))?;
    let texts = Spill::new(dir).map_err(|e| Error::io("write", dir, e))?;
    let mut tokenized = Tokenized {
        out,
        n_words: 0,
        texts,
        n_texts: 0,
        rows: vec![],
        languages: vec![],
        lang_ids: HashMap::new(),
        ids: Ids::default(),
    };
    let notes = tokenized.read_all(inputs, path, progress)?;
    write_index(tokenized, dir, key, notes).map_err(|e| Error::io("write", path, e))?;
    // Hashed before it was read: is it what was read?
    if inputs.key()? != key {
        return Err(Error::file(
            inputs.data.path(),
            "changed while it was read; run the command again when it is whole",
        ));
    }
    file.persist(path).map_err(|e| Error::io("write", path, e))?;
    // The new name has to reach the disk, too; where directories cannot be synced, the system writes it later.
    let _ = File::open(dir).and_then(|dir| dir.sync_all());
    Ok(())
}

/// Result of the first pass.
pub(super) struct Tokenized<'a> {
    /// The cache file, up to the end of its words.
    pub(super) out: BlockWriter<'a>,
    pub(super) n_words: u64,
    /// One [`TextRecord`] a text, in the order of the data, with provisional language ids.
    pub(super) texts: Spill,
    pub(super) n_texts: u64,
    pub(super) rows: Vec<RowEntry>,
    /// Languages in the order of their first texts, which is the order of the provisional ids.
    pub(super) languages: Vec<String>,
    lang_ids: HashMap<String, LangId>,
    ids: Ids,
}

/// What is remembered of rows to find out whether they can be grouped.
#[derive(Default)]
struct Ids {
    shared: SharedIds,
    /// Rows that have no positive of their own: identity and id.
    without_positive: HashMap<u128, String>,
}

impl Ids {
    fn add(&mut self, row: &EncodedRow) {
        if row.has_own_id {
            self.shared.add(&row.id, row.identity);
        }
        if !row.has_positive() {
            self.without_positive.entry(row.identity).or_insert_with(|| row.id.clone());
        }
    }
}

impl EncodedRow {
    fn has_positive(&self) -> bool {
        self.texts.iter().any(|text| text.role == Role::Positive)
    }
}

/// A row after tokenization.
struct EncodedRow {
    id: String,
    /// What rows of one group have in common.
    identity: u128,
    /// Whether other rows may have the id without being parts of the group.
    has_own_id: bool,
    texts: Vec<EncodedText>,
    n_bytes: u64,
}

struct EncodedText {
    role: Role,
    lang: String,
    hash: u64,
    score: Option<f32>,
    encoded: Encoded,
}

impl Tokenized<'_> {
    /// Reads and tokenizes everything; returns what there is to say about it.
    fn read_all(&mut self, inputs: &Inputs, path: &Path, progress: &dyn Fn(u64, u64)) -> Result<Notes> {
        let mut rows = inputs.data.rows()?;
        let n_bytes = inputs.data.n_bytes();
        let mut n_done = 0;
        progress(0, n_bytes);
        let mut chunk = next_chunk(&mut rows)?;
        while !chunk.is_empty() {
            let (encoded, next) = rayon::join(
                || -> Vec<Result<EncodedRow>> { chunk.par_iter().map(|row| encode_row(row, inputs)).collect() },
                || next_chunk(&mut rows),
            );
            // One after the other, so that the first of several bad rows is reported.
            for row in encoded {
                let row = row?;
                n_done += row.n_bytes;
                self.push(row).map_err(|e| Error::io("write", path, e))?;
            }
            progress(n_done.min(n_bytes), n_bytes);
            chunk = next?;
        }
        progress(n_bytes, n_bytes);
        if self.rows.is_empty() {
            return Err(Error::file(inputs.data.path(), "no training row in this data; check the path and the split"));
        }
        if let Some(id) = self.without_positive() {
            return Err(without_positive(inputs.data.path(), id));
        }
        let mut notes = rows.notes();
        notes.add(Note::SharedIds, self.ids.shared.count());
        Ok(notes)
    }

    /// Id of the first group that has only negatives.
    fn without_positive(&mut self) -> Option<&str> {
        for row in self.rows.iter().filter(|row| row.has_positive) {
            self.ids.without_positive.remove(&row.identity());
        }
        let ids = &self.ids.without_positive;
        self.rows.iter().find_map(|row| ids.get(&row.identity())).map(String::as_str)
    }

    fn push(&mut self, row: EncodedRow) -> io::Result<()> {
        let too_many = |what| io::Error::other(format!("more than {what} in one data set; split it"));
        if self.rows.len() >= u32::MAX as usize {
            return Err(too_many("4,294,967,295 rows"));
        }
        let id_hash = row.identity;
        self.rows.push(RowEntry {
            id_hash: [(id_hash >> 64) as u64, id_hash as u64],
            first_text: self.n_texts,
            id_len: row.id.len() as u32,
            has_positive: row.has_positive(),
        });
        self.ids.add(&row);
        self.out.write_all(row.id.as_bytes())?;
        self.out.align(size_of::<u32>() as u64)?;
        self.n_words += row.id.len().div_ceil(size_of::<u32>()) as u64;
        for EncodedText { role, lang, hash, score, encoded } in row.texts {
            let lang = match self.lang_ids.get(&lang) {
                Some(id) => *id,
                None => {
                    let id = LangId::try_from(self.languages.len()).ok().filter(|id| *id < LangId::MAX);
                    let id = id.ok_or_else(|| too_many("65,535 languages"))?;
                    self.languages.push(lang.clone());
                    *self.lang_ids.entry(lang).or_insert(id)
                }
            };
            let len = encoded.ids.len() as u32;
            let full_len = u32::try_from(encoded.full_len).unwrap_or(u32::MAX);
            let (start, role, score) = (self.n_words, role as u16, score.unwrap_or(f32::NAN));
            self.texts.push(&TextRecord { start, hash, link: 0, len, full_len, role, lang, score })?;
            self.out.write_all(bytemuck::cast_slice(&encoded.ids))?;
            self.n_words += u64::from(len);
            self.n_texts += 1;
        }
        Ok(())
    }
}

fn next_chunk(rows: &mut Rows) -> Result<Vec<Row>> {
    let mut chunk = Vec::new();
    let mut n_bytes = 0;
    while chunk.len() < CHUNK_ROWS && n_bytes < CHUNK_BYTES {
        let Some(row) = rows.next().transpose()? else { break };
        n_bytes += row.n_bytes();
        chunk.push(row);
    }
    Ok(chunk)
}

fn encode_row(row: &Row, inputs: &Inputs) -> Result<EncodedRow> {
    let group = row.parse()?;
    let (identity, has_own_id) = (xxh3_128(group.identity().as_bytes()), group.identity.is_some());
    let TokenizeSpec { query_prefix, passage_prefix, query_max_len, passage_max_len } = inputs.spec;
    let mut texts = Vec::with_capacity(group.queries.len() + group.positives.len() + group.negatives.len());
    for (role, of_role, scores, prefix, max_len) in [
        (Role::Query, group.queries, vec![], query_prefix, *query_max_len),
        (Role::Positive, group.positives, group.positive_scores, passage_prefix, *passage_max_len),
        (Role::Negative, group.negatives, group.negative_scores, passage_prefix, *passage_max_len),
    ] {
        for (i, Text { lang, text, instruction }) in of_role.into_iter().enumerate() {
            let prefix = instruction.as_ref().unwrap_or(prefix);
            let encoded = encode(inputs.tokenizer, row, prefix, &text, max_len)?;
            let (hash, score) = (text_hash(&text), scores.get(i).copied());
            texts.push(EncodedText { role, lang, hash, score, encoded });
        }
    }
    Ok(EncodedRow { id: group.id, identity, has_own_id, texts, n_bytes: row.n_bytes() })
}

fn encode(tokenizer: &TextTokenizer, row: &Row, prefix: &str, text: &str, max_len: usize) -> Result<Encoded> {
    tokenizer.encode(prefix, text, max_len).map_err(|e| row.error(e))
}

/// Records that are kept on the disk until they are sorted. The file has no name, so it disappears with the process.
pub(super) struct Spill {
    file: BufWriter<File>,
    dir: PathBuf,
}

impl Spill {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, tempfile::tempfile_in(dir)?);
        Ok(Spill { file, dir: dir.to_owned() })
    }

    pub(super) fn push<T: Pod>(&mut self, record: &T) -> io::Result<()> {
        self.file.write_all(bytemuck::bytes_of(record))
    }

    /// All records, for reading.
    pub(super) fn finish(self) -> io::Result<Mapped> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Mapped::new(&file, &self.dir)
    }
}

/// Creates a directory that only the user can look into, unless it is there.
fn create_private(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)
}

/// Permissions of a cache: whoever may not read a file of the data may not read its tokens.
#[cfg(unix)]
fn mode_of(data: &Resolved) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    let of_file = |path: &Path| fs::metadata(path).map_or(0o600, |metadata| metadata.permissions().mode());
    data.files().fold(0o666, |mode, (_, path)| mode & (of_file(path) | 0o600))
}

#[cfg(not(unix))]
fn mode_of(_: &Resolved) -> u32 {
    0
}
