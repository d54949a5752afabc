//! Embeddings kept from run to run: a text that was embedded once by a model is not embedded again, in whichever task it
//! occurs, and an evaluation that was killed goes on where it was.
//!
//! A directory is of one model with all else that its embeddings depend on, and has two files of rows that grow:
//! `vectors`, and `keys`, which has each row's key ([`key`]), a hash of its vector and a hash of both. Rows are written in
//! this order, so that what a killed process has left is a row too many in one of them, or a part of a row, and is cut off. A
//! row is taken only when its vector is the one that was written.
//!
//! One process at a time writes to a directory; others take what is there.

use super::TextKind;
use crate::{Error, Result};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Names of a directory's files.
const KEYS: &str = "keys";
const VECTORS: &str = "vectors";
const FILES: [&str; 2] = [KEYS, VECTORS];
/// Bytes of a row of `keys`: a text's key, a hash of its vector, a hash of the two.
const KEY_ROW: usize = 32;
/// Vectors that are read at once where they lie one behind the other.
const MOST_AT_ONCE: usize = 1024;

/// What a text is kept under: itself, the prefix before it, and the length at which it is cut.
pub fn key(kind: &TextKind, text: &str) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&(kind.prefix.len() as u64).to_le_bytes());
    hash.update(&(kind.max_len as u64).to_le_bytes());
    hash.update(kind.prefix.as_bytes());
    hash.update(text.as_bytes());
    hash.digest128()
}

/// Makes room in `folder`, which has a directory for each model: those that were not used for longest go until `limit` bytes hold
/// what the others take, `own` beside them however large it is. Returns the bytes that `own` may take.
///
/// # Errors
/// If the folder can be neither read nor made.
pub fn make_room(folder: &Path, own: &Path, limit: u64) -> Result<u64> {
    let failed = |e| Error::io("read", folder, e);
    fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    let mut others = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let files = FILES.map(|name| fs::metadata(path.join(name)));
        let n_bytes: u64 = files.iter().flatten().map(fs::Metadata::len).sum();
        let used = files.iter().flatten().filter_map(|file| file.modified().ok()).max();
        if path != own {
            others.push((used, n_bytes, path));
        }
    }
    others.sort();
    let n_bytes =
        |path: &Path| FILES.iter().filter_map(|name| Some(fs::metadata(path.join(name)).ok()?.len())).sum::<u64>();
    let (of_own, mut of_others) = (n_bytes(own), others.iter().map(|(_, n_bytes, _)| n_bytes).sum::<u64>());
    for (_, n_bytes, path) in others {
        if of_own + of_others <= limit {
            break;
        }
        // One that another process uses stays.
        let in_use = File::open(path.join(KEYS)).is_ok_and(|keys| keys.try_lock().is_err());
        if !in_use && FILES.iter().all(|name| fs::remove_file(path.join(name)).is_ok()) {
            let _ = fs::remove_dir(&path);
            of_others -= n_bytes;
        }
    }
    Ok(limit.saturating_sub(of_others))
}

/// Embeddings of one model.
pub struct KeptEmbeddings {
    dim: usize,
    keys: Growing,
    vectors: Growing,
    /// Row of each key, by its lower half: the whole is compared where it is read.
    rows: HashMap<u64, u32>,
    /// Whether this process may write, and has not met a full disk or the limit.
    writes: bool,
    /// Bytes of both files at most.
    limit: u64,
}

/// A file of rows of one size.
struct Growing {
    path: PathBuf,
    file: File,
    row: usize,
    n_rows: u32,
}

impl KeptEmbeddings {
    /// Opens `directory`, made if need be, with embeddings of `dim` values. It grows to `limit` bytes at most.
    ///
    /// # Errors
    /// If it can be neither read nor made.
    pub fn open(directory: &Path, dim: usize, limit: u64) -> Result<Self> {
        fs::create_dir_all(directory).map_err(|e| Error::io("create", directory, e))?;
        let mut vectors = Growing::open(directory.join(VECTORS), 4 * dim)?;
        let mut keys = Growing::open(directory.join(KEYS), KEY_ROW)?;
        let writes = keys.file.try_lock().is_ok();
        let n_rows = keys.n_rows.min(vectors.n_rows);
        if writes {
            keys.cut(n_rows)?;
            vectors.cut(n_rows)?;
        }
        let mut kept = KeptEmbeddings { dim, keys, vectors, rows: HashMap::new(), writes, limit };
        kept.read_keys(n_rows)?;
        Ok(kept)
    }

    /// Notes where each text is. A row that is not what was written is none.
    fn read_keys(&mut self, n_rows: u32) -> Result<()> {
        let failed = |e| Error::io("read", &self.keys.path, e);
        self.rows.reserve(n_rows as usize);
        self.keys.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut reader = io::BufReader::with_capacity(1 << 20, &self.keys.file);
        let mut row = [0; KEY_ROW];
        for number in 0..n_rows {
            reader.read_exact(&mut row).map_err(failed)?;
            if xxh3_64(&row[..24]).to_le_bytes() == row[24..] {
                self.rows.insert(half(&row), number);
            }
        }
        Ok(())
    }

    /// Whether what is [added](KeptEmbeddings::add) is kept.
    pub fn grows(&self) -> bool {
        self.writes
    }

    /// Puts the vectors of `keys` that are there into their rows of `out (keys, dim)`, and returns the places of the others.
    ///
    /// # Errors
    /// If the files cannot be read.
    pub fn get(&mut self, keys: &[u128], out: &mut [f32]) -> Result<Vec<usize>> {
        let mut missing = Vec::new();
        let mut known: Vec<(u32, usize)> = Vec::new();
        for (place, &key) in keys.iter().enumerate() {
            match self.rows.get(&(key as u64)) {
                Some(&row) => known.push((row, place)),
                None => missing.push(place),
            }
        }
        known.sort_unstable();
        // A text may stand at several places, and neighbours are read at once.
        for run in known.chunk_by(|(a, _), (b, _)| *b - *a <= 1) {
            for run in run.chunks(MOST_AT_ONCE) {
                let (first, last) = (run[0].0, run[run.len() - 1].0);
                let of_keys = self.keys.read(first, last)?;
                let vectors = self.vectors.read(first, last)?;
                for &(row, place) in run {
                    let at = (row - first) as usize;
                    let key_row = &of_keys[at * KEY_ROW..][..KEY_ROW];
                    let vector = &vectors[at * 4 * self.dim..][..4 * self.dim];
                    let is_it =
                        key_row[..16] == keys[place].to_le_bytes() && key_row[16..24] == xxh3_64(vector).to_le_bytes();
                    match is_it {
                        true => values(vector, &mut out[place * self.dim..][..self.dim]),
                        false => missing.push(place),
                    }
                }
            }
        }
        missing.sort_unstable();
        Ok(missing)
    }

    /// Keeps the vectors `(keys, dim)` of texts that were not there. Returns why none is kept from here on, the first time that
    /// this is so: a cache that cannot grow is no reason to stop.
    pub fn add(&mut self, keys: &[u128], vectors: &[f32]) -> Option<String> {
        assert_eq!(vectors.len(), keys.len() * self.dim, "one vector a key");
        if !self.writes {
            return None;
        }
        let n_new = keys.len() as u64;
        let n_rows = u64::from(self.keys.n_rows) + n_new;
        if n_rows * (KEY_ROW + 4 * self.dim) as u64 > self.limit || n_rows > u64::from(u32::MAX) {
            self.writes = false;
            return Some("the limit on kept embeddings is reached".to_owned());
        }
        let bytes: &[u8] = bytemuck::cast_slice(vectors);
        let mut rows = Vec::with_capacity(keys.len() * KEY_ROW);
        for (key, vector) in keys.iter().zip(bytes.chunks_exact(4 * self.dim)) {
            let start = rows.len();
            rows.extend(key.to_le_bytes());
            rows.extend(xxh3_64(vector).to_le_bytes());
            rows.extend(xxh3_64(&rows[start..]).to_le_bytes());
        }
        let first = self.keys.n_rows;
        if let Err(e) = self.vectors.append(bytes).and_then(|()| self.keys.append(&rows)) {
            self.writes = false;
            return Some(format!("embeddings are not kept from here on: {e}"));
        }
        self.rows.extend(keys.iter().map(|key| *key as u64).zip(first..));
        None
    }
}

/// The half of a row's key by which it is found.
fn half(row: &[u8]) -> u64 {
    u64::from_le_bytes(row[..8].try_into().expect("eight bytes"))
}

fn values(bytes: &[u8], out: &mut [f32]) {
    for (value, bytes) in out.iter_mut().zip(bytes.chunks_exact(4)) {
        *value = f32::from_le_bytes(bytes.try_into().expect("four bytes"));
    }
}

impl Growing {
    fn open(path: PathBuf, row: usize) -> Result<Self> {
        let file = File::options().create(true).read(true).append(true).open(&path);
        let file = file.map_err(|e| Error::io("open", &path, e))?;
        let n_bytes = file.metadata().map_err(|e| Error::io("read", &path, e))?.len();
        let n_rows = u32::try_from(n_bytes / row as u64).unwrap_or(u32::MAX);
        Ok(Growing { path, file, row, n_rows })
    }

    fn cut(&mut self, n_rows: u32) -> Result<()> {
        self.n_rows = n_rows;
        let n_bytes = u64::from(n_rows) * self.row as u64;
        if self.file.metadata().is_ok_and(|metadata| metadata.len() == n_bytes) {
            return Ok(());
        }
        self.file.set_len(n_bytes).map_err(|e| Error::io("write", &self.path, e))
    }

    /// The bytes of some rows.
    fn read(&mut self, first: u32, last: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; (last - first + 1) as usize * self.row];
        let start = SeekFrom::Start(u64::from(first) * self.row as u64);
        let read = self.file.seek(start).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|e| Error::io("read", &self.path, e))?;
        Ok(bytes)
    }

    /// Appends whole rows, or none.
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(e) = self.file.write_all(bytes) {
            // What was written of it goes.
            let _ = self.cut(self.n_rows);
            return Err(Error::io("write", &self.path, e));
        }
        self.n_rows += (bytes.len() / self.row) as u32;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(prefix: &str, max_len: usize) -> TextKind {
        TextKind { prefix: prefix.to_owned(), max_len }
    }

    fn keys(texts: &[&str]) -> Vec<u128> {
        texts.iter().map(|text| key(&kind("", 8), text)).collect()
    }

    /// Opened as a new process does, with no process beside it.
    fn open(folder: &Path) -> KeptEmbeddings {
        KeptEmbeddings::open(folder, 2, 1 << 20).unwrap()
    }

    #[test]
    fn keys_are_of_text_prefix_and_length() {
        let all = [key(&kind("", 8), "ab"), key(&kind("a", 8), "b"), key(&kind("", 9), "ab"), key(&kind("", 8), "a")];
        assert!((1..4).all(|i| !all[..i].contains(&all[i])));
        assert_eq!(all[0], key(&kind("", 8), "ab"));
    }

    #[test]
    fn what_was_added_is_there_for_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b, c] = [1.0, 2.0, 3.0].map(|x| [x, -x]);
        assert_eq!(open(folder.path()).add(&keys(&["a", "b"]), &[a, b].concat()), None);
        assert_eq!(open(folder.path()).add(&keys(&["c"]), &c), None);
        let mut kept = open(folder.path());
        let mut out = [0.0; 10];
        assert_eq!(kept.get(&keys(&["c", "x", "a", "b", "a"]), &mut out).unwrap(), [1]);
        assert_eq!(out, [3.0, -3.0, 0.0, 0.0, 1.0, -1.0, 2.0, -2.0, 1.0, -1.0]);
    }

    /// Whatever is left of rows at the end, and whichever bit is another one, no wrong vector comes out.
    #[test]
    fn torn_and_flipped_rows_are_none() {
        let texts = ["a", "b", "c"];
        let written = tempfile::tempdir().unwrap();
        open(written.path()).add(&keys(&texts), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let files = ["keys", "vectors"].map(|name| fs::read(written.path().join(name)).unwrap());
        let check = |files: [Vec<u8>; 2], n_least: usize| {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("keys"), &files[0]).unwrap();
            fs::write(folder.path().join("vectors"), &files[1]).unwrap();
            let mut kept = open(folder.path());
            let mut out = [0.0; 6];
            let missing = kept.get(&keys(&texts), &mut out).unwrap();
            assert!(missing.len() <= 3 - n_least, "{missing:?}");
            for place in (0..3).filter(|place| !missing.contains(place)) {
                assert_eq!(out[2 * place..][..2], [1.0 + 2.0 * place as f32, 2.0 + 2.0 * place as f32]);
            }
            // What is missing is added again, and then all are there.
            let again: Vec<u128> = missing.iter().map(|&place| keys(&texts)[place]).collect();
            let values: Vec<f32> =
                missing.iter().flat_map(|&place| [1.0 + 2.0 * place as f32, 2.0 + 2.0 * place as f32]).collect();
            assert_eq!(kept.add(&again, &values), None);
            drop(kept);
            assert_eq!(open(folder.path()).get(&keys(&texts), &mut out).unwrap(), [] as [usize; 0]);
            assert_eq!(out, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        };
        for (file, row) in [(0, KEY_ROW), (1, 8)] {
            for len in 0..files[file].len() {
                let mut cut = files.clone();
                cut[file].truncate(len);
                check(cut, len / row);
            }
            for bit in 0..8 * files[file].len() {
                let mut flipped = files.clone();
                flipped[file][bit / 8] ^= 1 << (bit % 8);
                check(flipped, 2);
            }
        }
    }

    #[test]
    fn the_oldest_of_others_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        // 40 bytes each.
        for name in ["b", "a", "own", "c"] {
            KeptEmbeddings::open(&path(name), 2, 1 << 20).unwrap().add(&keys(&["x"]), &[1.0, 2.0]);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let there = || ["a", "b", "c", "own"].map(|name| path(name).exists());
        assert_eq!(make_room(folder.path(), &path("own"), 200).unwrap(), 80);
        assert_eq!(there(), [true; 4]);
        assert_eq!(make_room(folder.path(), &path("own"), 130).unwrap(), 50);
        assert_eq!(there(), [true, false, true, true]);
        let in_use = KeptEmbeddings::open(&path("a"), 2, 1 << 20).unwrap();
        assert_eq!(make_room(folder.path(), &path("own"), 90).unwrap(), 50);
        assert_eq!(there(), [true, false, false, true]);
        drop(in_use);
    }

    #[test]
    fn a_second_process_reads_and_the_limit_holds() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = open(folder.path());
        first.add(&keys(&["a"]), &[1.0, 2.0]);
        let mut second = open(folder.path());
        let mut out = [0.0; 2];
        assert_eq!(second.get(&keys(&["a"]), &mut out).unwrap(), [] as [usize; 0]);
        assert_eq!(second.add(&keys(&["b"]), &[3.0, 4.0]), None);
        assert_eq!((second.rows.len(), open(folder.path()).rows.len()), (1, 1));
        drop(first);
        let mut small = KeptEmbeddings::open(folder.path(), 2, 80).unwrap();
        assert_eq!(small.add(&keys(&["b"]), &[3.0, 4.0]), None);
        let full = small.add(&keys(&["c"]), &[5.0, 6.0]);
        assert_eq!(full.as_deref(), Some("the limit on kept embeddings is reached"));
        assert_eq!(small.add(&keys(&["c"]), &[5.0, 6.0]), None);
        assert_eq!(small.rows.len(), 2);
    }
}
