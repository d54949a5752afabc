//! Which of cuBLASLt's algorithms was fastest at a product, in a file for the next run.
//!
//! Another algorithm may add up in another order, so every run on a machine has to take the same. A choice is in the file
//! before it is first used and stays there, whoever made it: the file is locked from the look whether there is one until
//! one is written. Where it cannot be written, nothing is chosen, and runs take what the heuristic names first. Without the
//! file, algorithms are timed again, and another may come out ahead.

use crate::cache::cache_dir;
use crate::files::SharedFile;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// An algorithm as cuBLASLt keeps it, `cublasLtMatmulAlgo_t`.
pub type Words = [u64; 8];

/// What came out of the timing of a product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    pub algorithm: Words,
    /// Its microseconds, and those of the algorithm that the heuristic names first.
    pub microseconds: [f32; 2],
}

/// The choices for one kind of GPU and one version of cuBLASLt.
pub struct Choices {
    path: PathBuf,
    /// What they hold for: the file's second line.
    scope: String,
    known: BTreeMap<String, Choice>,
}

/// The file's first line.
const TITLE: &str =
    "hbt: cuBLASLt's fastest algorithm for each product on this machine (microseconds; those of its own first choice)";

impl Choices {
    /// Those that are in the cache; none where there is no cache. `stem` is a file's name, and tells apart what `scope`, one
    /// line, says in full.
    pub fn open(stem: &str, scope: &str) -> Option<Self> {
        let path = cache_dir().ok()?.join("kernels").join(format!("{stem}.txt"));
        Some(Self::at(path, scope))
    }

    fn at(path: PathBuf, scope: &str) -> Self {
        let mut choices = Choices { path, scope: scope.to_owned(), known: BTreeMap::new() };
        choices.read();
        choices
    }

    /// The choice for `product`: the one in the file if it `is_usable`, else what `time` gives, which is then there. Nothing
    /// where the file cannot be written, and where `time` gives nothing.
    pub fn settle(
        &mut self,
        product: &str,
        is_usable: impl Fn(&Words) -> bool,
        time: impl FnOnce() -> Option<Choice>,
    ) -> Option<Choice> {
        let known = |choices: &Self| choices.known.get(product).filter(|choice| is_usable(&choice.algorithm)).copied();
        if let Some(choice) = known(self) {
            return Some(choice);
        }
        let _lock = self.lock().ok()?;
        // Another process may have been here.
        self.read();
        if let Some(choice) = known(self) {
            return Some(choice);
        }
        let choice = time()?;
        self.known.insert(product.to_owned(), choice);
        if self.write().is_err() {
            self.known.remove(product);
            return None;
        }
        Some(choice)
    }

    /// Held until it is dropped; the file itself is replaced whenever it is written.
    fn lock(&self) -> io::Result<File> {
        fs::create_dir_all(folder(&self.path))?;
        let file = File::options().create(true).truncate(false).write(true).open(self.path.with_extension("lock"))?;
        file.lock()?;
        Ok(file)
    }

    /// A file that is damaged, or is about something else, is none.
    fn read(&mut self) {
        self.known = fs::read_to_string(&self.path).ok().and_then(|text| self.parse(&text)).unwrap_or_default();
    }

    fn parse(&self, text: &str) -> Option<BTreeMap<String, Choice>> {
        let rest = text.strip_prefix(TITLE)?.strip_prefix('\n')?.strip_prefix(&self.scope)?.strip_prefix("\ncheck ")?;
        let (check, lines) = rest.split_once('\n')?;
        if check != checksum(lines) {
            return None;
        }
        lines.lines().map(parse_line).collect()
    }

    fn write(&self) -> io::Result<()> {
        let mut lines = String::new();
        for (product, Choice { algorithm, microseconds: [its, of_first] }) in &self.known {
            let words: String = algorithm.iter().map(|word| format!("{word:016x}")).collect();
            writeln!(lines, "{product}: {its:.1} ({of_first:.1}) {words}").expect("a string takes all");
        }
        let file = SharedFile::create(folder(&self.path), 0o600)?;
        let text = format!("{TITLE}\n{}\ncheck {}\n{lines}", self.scope, checksum(&lines));
        file.as_file().write_all(text.as_bytes())?;
        file.persist(&self.path)
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().expect("a file in the cache")
}

fn checksum(lines: &str) -> String {
    format!("{:016x}", xxh3_64(lines.as_bytes()))
}

/// `PRODUCT: MICROSECONDS (MICROSECONDS) HEX`
fn parse_line(line: &str) -> Option<(String, Choice)> {
    let (product, rest) = line.split_once(": ")?;
    let (its, rest) = rest.split_once(" (")?;
    let (of_first, words) = rest.split_once(") ")?;
    let microseconds = [its.parse().ok()?, of_first.parse().ok()?];
    let mut algorithm = [0; 8];
    if words.len() != 16 * algorithm.len() {
        return None;
    }
    for (i, word) in algorithm.iter_mut().enumerate() {
        *word = u64::from_str_radix(words.get(16 * i..16 * (i + 1))?, 16).ok()?;
    }
    Some((product.to_owned(), Choice { algorithm, microseconds }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(n: u64) -> Choice {
        Choice { algorithm: [n, 1, u64::MAX, 0, 0, 0, 7, n << 60], microseconds: [n as f32 + 0.5, 99.0] }
    }

    fn any(_: &Words) -> bool {
        true
    }

    fn never() -> Option<Choice> {
        panic!("it is known")
    }

    #[test]
    fn a_choice_is_made_once_whoever_makes_it() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Choices::at(folder.path().join("kernels/products.txt"), "gpu x");
        let (mut one, mut other) = (open(), open());
        assert_eq!(one.settle("2 x 3", any, || Some(choice(1))), Some(choice(1)));
        assert_eq!(one.settle("2 x 3", any, never), Some(choice(1)));
        assert_eq!(other.settle("2 x 3", any, never), Some(choice(1)), "the file is read again");
        assert_eq!(other.settle("2 x 4", any, || Some(choice(2))), Some(choice(2)));
        assert_eq!(one.settle("2 x 5", any, || None), None);
        let mut later = open();
        assert_eq!(later.settle("2 x 3", any, never), Some(choice(1)));
        assert_eq!(later.settle("2 x 4", any, never), Some(choice(2)), "each kept the other's");
        assert_eq!(later.settle("2 x 3", |words| words[0] != 1, || Some(choice(3))), Some(choice(3)), "of no use");
        assert_eq!(open().settle("2 x 3", any, never), Some(choice(3)));
    }

    /// Threads that all want a choice of their own get the same.
    #[test]
    fn the_first_writer_wins() {
        let folder = tempfile::tempdir().unwrap();
        let choose = |n: u64| {
            let mut choices = Choices::at(folder.path().join("products.txt"), "gpu x");
            choices.settle("2 x 3", any, || Some(choice(n))).unwrap().algorithm[0]
        };
        let chosen: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (1..9).map(|n| scope.spawn(move || choose(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(chosen.iter().all(|&n| n == chosen[0]), "{chosen:?}");
    }

    #[test]
    fn what_is_damaged_or_about_something_else_is_ignored_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("products.txt");
        let open = |scope: &str| Choices::at(path.clone(), scope);
        open("gpu x").settle("2 x 3", any, || Some(choice(1))).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for (what, text) in [
            ("cut", good[..good.len() - 5].to_owned()),
            ("empty", String::new()),
            ("a digit", good.replace("ffff", "fffe")),
            ("another product", good.replace("2 x 3", "2 x 4")),
            ("another GPU", good.replace("gpu x", "gpu y")),
            ("no text", "\u{0}\u{1}".to_owned()),
        ] {
            fs::write(&path, text).unwrap();
            assert!(open("gpu x").known.is_empty(), "{what}");
            assert_eq!(open("gpu x").settle("2 x 3", any, || Some(choice(1))), Some(choice(1)), "{what}");
            assert_eq!(fs::read_to_string(&path).unwrap(), good, "{what}");
        }
    }

    #[test]
    fn nothing_is_chosen_where_nothing_can_be_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kernels"), "a file where the folder should be").unwrap();
        let mut choices = Choices::at(folder.path().join("kernels/products.txt"), "gpu x");
        assert_eq!(choices.settle("2 x 3", any, never), None);
    }
}
