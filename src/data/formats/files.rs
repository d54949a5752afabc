//! The files of a data set: those that hbt reads, and the names of those that it does not.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A file of the data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::data) struct DataFile {
    pub(in crate::data) path: PathBuf,
    /// Path within the data set, with slashes; part of the ids of rows without an id.
    pub(in crate::data) name: String,
    pub(in crate::data) kind: Kind,
}

/// What a file's name says of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::data) enum Kind {
    /// A JSON object a line.
    Lines,
    /// One JSON document, or lines after all; the content decides.
    Json,
    /// One JSON list of objects.
    List,
    /// A JSON document in SQuAD layout.
    Squad,
    /// Nothing.
    Empty,
    /// Columns between these bytes.
    Delimited(u8),
    /// Parquet.
    Parquet,
    /// Arrow.
    Arrow,
}

/// Files that are data, in the order of their names, and the names of all others.
#[derive(Default)]
pub(in crate::data) struct Found {
    pub(in crate::data) files: Vec<DataFile>,
    pub(super) unused: Vec<String>,
}

/// Folders in folders: more are a loop of links.
const MOST_DEPTH: usize = 16;
/// Endings of files that are data as soon as they are unpacked or exported in another way.
const NEARLY: [(&str, &str); 5] = [
    ("bz2", "unpack it, or pack it with gzip or zstd"),
    ("xz", "unpack it, or pack it with gzip or zstd"),
    ("lz4", "unpack it, or pack it with gzip or zstd"),
    ("feather", "export it as Parquet"),
    ("avro", "export it as Parquet"),
];

/// What lies at `root`: the file itself, whatever its name, or all files of a directory and of the folders in it.
/// Hidden ones are none of the data.
///
/// # Errors
/// Nothing there; a link to nothing; a pipe or a device; a file that would be data if it were not packed.
pub(super) fn find(root: &Path) -> Result<Found> {
    let found = walk(root)?;
    check_twins(root, &found.files)?;
    Ok(found)
}

/// As `find`; the same data twice is no matter.
///
/// # Errors
/// As `find`.
pub(in crate::data) fn walk(root: &Path) -> Result<Found> {
    let mut found = Found::default();
    if root == Path::new("-") {
        return Err(Error::file(root, "data is read more than once, so not from standard input; write it to a file"));
    }
    let metadata = metadata(root)?;
    if metadata.is_dir() {
        found.add_directory(root, "", 0)?;
    } else {
        check_regular(root, &metadata)?;
        let name = file_name(root);
        refuse_nearly(root, &name)?;
        found.files.push(DataFile { kind: kind_of(&name).unwrap_or(Kind::Lines), name, path: root.to_owned() });
    }
    Ok(found)
}

impl Found {
    fn add_directory(&mut self, dir: &Path, prefix: &str, depth: usize) -> Result<()> {
        if depth > MOST_DEPTH {
            return Err(Error::file(dir, "folders lie too deep here, as a loop of links makes them; remove it"));
        }
        for path in entries(dir)? {
            let name = format!("{prefix}{}", file_name(&path));
            let metadata = metadata(&path)?;
            if metadata.is_dir() {
                self.add_directory(&path, &format!("{name}/"), depth + 1)?;
            } else if let Some(kind) = kind_of(&name).filter(|_| metadata.is_file()) {
                self.files.push(DataFile { path, name, kind });
            } else if !is_about_data(&name) {
                refuse_nearly(&path, &name)?;
                self.unused.push(name);
            }
        }
        Ok(())
    }
}

/// Files and folders in a directory, without hidden ones, in the order of their names.
pub(in crate::data) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::io("read", dir, e))? {
        let entry = entry.map_err(|e| Error::io("read", dir, e))?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// [`fs::metadata`], with the error that a link to nothing deserves.
fn metadata(path: &Path) -> Result<Metadata> {
    fs::metadata(path).map_err(|e| {
        if e.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_ok() {
            return Error::file(path, "is a link to a file that is not there; fetch that file, or remove the link");
        }
        Error::io("read", path, e)
    })
}

/// Data is read more than once: to know it again, to tokenize it, to write it with negatives.
fn check_regular(path: &Path, metadata: &Metadata) -> Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(Error::file(path, "is a pipe or a device, and data is read more than once; write it to a file, and name that"))
}

/// The last name of a path.
pub(in crate::data) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A name without the ending of gzip or zstd.
fn unpacked(name: &str) -> &str {
    let inner = |ending: &&str| {
        let (inner, last) = name.split_at_checked(name.len().checked_sub(ending.len())?)?;
        last.eq_ignore_ascii_case(ending).then_some(inner)
    };
    [".gz", ".zst", ".zstd"].iter().find_map(inner).unwrap_or(name)
}

/// A name without its endings.
pub(in crate::data) fn without_endings(name: &str) -> &str {
    let name = unpacked(name);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// A name without its endings, in lower case.
pub(super) fn stem(name: &str) -> String {
    without_endings(name).to_lowercase()
}

/// What a file with this name holds, if it is data.
pub(in crate::data) fn kind_of(name: &str) -> Option<Kind> {
    let name = unpacked(name).to_lowercase();
    match name.rsplit_once('.')?.1 {
        "jsonl" | "ndjson" | "jsonlines" | "jl" => Some(Kind::Lines),
        // What `datasets` writes beside its data.
        "json" if is_description(&name) => None,
        "json" => Some(Kind::Json),
        "csv" => Some(Kind::Delimited(b',')),
        "tsv" | "tab" => Some(Kind::Delimited(b'\t')),
        "parquet" => Some(Kind::Parquet),
        "arrow" => Some(Kind::Arrow),
        _ => None,
    }
}

/// Whether a file is for people to read, or says of the data what it is.
fn is_about_data(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name).to_lowercase();
    name.ends_with(".md") || name.starts_with("readme") || name.starts_with("license") || is_description(&name)
}

/// Whether a `.json` file describes data without being any.
fn is_description(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"].contains(&name)
}

fn refuse_nearly(path: &Path, name: &str) -> Result<()> {
    let name = name.to_lowercase();
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    match NEARLY.iter().find(|(nearly, _)| *nearly == ending) {
        Some((ending, what_to_do)) => Err(Error::file(path, format!("hbt reads no .{ending} files; {what_to_do}"))),
        None => Ok(()),
    }
}

/// The same data twice, in two formats or packed and unpacked, would count twice.
fn check_twins(root: &Path, files: &[DataFile]) -> Result<()> {
    let mut stems: Vec<(String, &DataFile)> = files.iter().map(|file| (stem(&file.name), file)).collect();
    stems.sort_by(|a, b| a.0.cmp(&b.0));
    match stems.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        None => Ok(()),
        Some(pair) => Err(Error::file(
            root,
            format!(
                "{} and {} look like the same data twice; move one away, or name a file instead of the directory",
                pair[0].1.name, pair[1].1.name
            ),
        )),
    }
}
