//! BibleNLP: verses of the Bible in English and in another language.
//!
//! As in mteb's BibleNLPBitextMining both directions of a pair, `eng_Latn-deu_Latn` and `deu_Latn-eng_Latn`, are one table,
//! `eng-deu`, with a column `eng` and a column `deu`, of which the first 256 rows count.

use super::{Pairs, Tables};
use crate::Result;

const ENGLISH: &str = "eng";
/// Rows that count: `_N` of mteb's task.
const N_MOST: usize = 256;

/// The config of the verses of two languages.
pub fn bible_nlp_config(from: &str, to: &str) -> String {
    match (code(from), code(to)) {
        (from, ENGLISH) => format!("{ENGLISH}-{from}"),
        (from, to) => format!("{from}-{to}"),
    }
}

/// The verses in one language and in the other, of a table, of which the [place](Tables::place) is given.
///
/// # Errors
/// No such table; a file that cannot be read or lacks a column; a verse that is null.
pub fn bible_nlp(tables: &Tables, [folder, file]: [&str; 2], (from, to): (&str, &str)) -> Result<Pairs> {
    let mut texts = tables.first_texts(folder, file, &[code(from), code(to)], N_MOST)?;
    let second = texts.pop().unwrap_or_default();
    Ok(Pairs { first: texts.pop().unwrap_or_default(), second, gold: Vec::new() })
}

/// `deu` of `deu_Latn`.
fn code(language: &str) -> &str {
    language.split_once('_').map_or(language, |(code, _)| code)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn pairs_are_those_of_mteb() {
        let row = |row: usize| format!("{{\"eng\": \"e{row}\", \"deu\": \"d{row}\"}}\n");
        // What is behind the rows that count may lack something.
        let rows: String = (0..N_MOST).map(row).chain(["{\"eng\": null, \"deu\": \"d\"}\n".to_owned()]).collect();
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(rows.as_bytes()).unwrap();
        let dir = TempDir::new().unwrap();
        // A folder a split, as on the hub; and a folder a pair.
        fs::create_dir_all(dir.path().join("train")).unwrap();
        fs::write(dir.path().join("train/eng-deu.jsonl.gz"), packed.finish().unwrap()).unwrap();
        fs::create_dir_all(dir.path().join("eng-aai")).unwrap();
        fs::write(dir.path().join("eng-aai/train.jsonl"), "{\"aai\": \" x\", \"eng\": \"y \"}\n").unwrap();
        let tables = Tables::open(dir.path()).unwrap();
        let of = |from, to| {
            let config = bible_nlp_config(from, to);
            let (folder, file) = tables.place(&config, "train").unwrap();
            bible_nlp(&tables, [folder, file], (from, to)).unwrap()
        };
        let (there, back) = (of("eng_Latn", "deu_Latn"), of("deu_Latn", "eng_Latn"));
        assert_eq!((there.first.len(), &*there.first[255], &*there.second[255]), (256, "e255", "d255"));
        assert_eq!((back.first, back.second), (there.second, there.first));
        let short = of("aai_Latn", "eng_Latn");
        assert_eq!((short.first, short.second, short.gold), (vec![" x".into()], vec!["y ".into()], vec![]));
    }
}
