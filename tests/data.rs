//! Training data: formats, tokenizer, token cache, report, and what each of them says of bad input.

pub mod answers;
mod bounds;
mod cache;
mod collection;
mod columns;
mod datasets;
mod files;
mod formats;
mod held_out;
mod hub;
mod pairs;
mod report;
mod tables;
pub mod xquad_r;

use std::fs;
use std::path::{Path, PathBuf};

use hbt::data::formats::DataSource;
use hbt::data::shard::{TokenCache, TokenizeSpec};
use hbt::data::tokenize::TextTokenizer;
use tempfile::TempDir;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{PaddingParams, Tokenizer, TruncationParams};

/// Ids of the test tokenizer's special tokens.
const PAD: u32 = 0;
const UNK: u32 = 1;
const BEGIN: u32 = 2;
const END: u32 = 3;
/// Words `w0` ... `w99` have the ids from here on.
const W0: u32 = 4;

/// A directory with a word-level tokenizer, `<s> w1 w2 </s>`, whose file asks for padding and truncation as real
/// ones do.
fn tokenizer_dir() -> TempDir {
    let specials = ["<pad>", "<unk>", "<s>", "</s>"].map(String::from);
    let words = specials.into_iter().chain((0..100).map(|i| format!("w{i}")));
    let vocab = words.enumerate().map(|(id, word)| (word, id as u32)).collect();
    let model = WordLevel::builder().vocab(vocab).unk_token("<unk>".into()).build().unwrap();
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_pre_tokenizer(Some(WhitespaceSplit))
        .with_post_processor(Some(BertProcessing::new(("</s>".into(), END), ("<s>".into(), BEGIN))))
        .with_padding(Some(PaddingParams { pad_id: PAD, ..Default::default() }))
        .with_truncation(Some(TruncationParams { max_length: 4, ..Default::default() }))
        .unwrap();
    let dir = TempDir::new().unwrap();
    tokenizer.save(dir.path().join("tokenizer.json"), false).unwrap();
    dir
}

fn tokenizer() -> TextTokenizer {
    TextTokenizer::from_file(tokenizer_dir().path()).unwrap()
}

fn spec() -> TokenizeSpec {
    TokenizeSpec { query_prefix: "w1 ".into(), passage_prefix: "w2 ".into(), query_max_len: 8, passage_max_len: 16 }
}

fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

/// Opens or builds with the test tokenizer and spec.
fn open(source: &DataSource, cache_dir: &Path) -> hbt::Result<TokenCache> {
    TokenCache::open_or_build(source, &tokenizer(), &spec(), cache_dir, &|_, _| ())
}

/// The message of the error that a value has to be.
fn message<T>(result: hbt::Result<T>) -> String {
    let message = result.err().expect("this has to fail").to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    message
}

mod tokenize {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn truncation_keeps_the_special_tokens() {
        let tokenizer = tokenizer();
        let whole = tokenizer.encode("w1 ", "w2 nonsense w3", 6).unwrap();
        assert_eq!(whole.ids, [BEGIN, W0 + 1, W0 + 2, UNK, W0 + 3, END]);
        assert_eq!((whole.full_len, whole.truncated), (6, false));
        let cut = tokenizer.encode("w1 ", "w2 nonsense w3", 5).unwrap();
        assert_eq!(cut.ids, [BEGIN, W0 + 1, W0 + 2, UNK, END]);
        assert_eq!((cut.full_len, cut.truncated), (6, true));
        let shortest = tokenizer.encode("", "w5 w6 w7 w8", 3).unwrap();
        assert_eq!(shortest.ids, [BEGIN, W0 + 5, END]);
    }

    #[test]
    fn texts_of_megabytes_have_the_same_tokens() {
        let tokenizer = tokenizer();
        let n_words = 700_000;
        let long: String = (0..n_words).map(|i| format!("w{} ", i % 100)).collect();
        let cut = tokenizer.encode("w7 ", &long, 6).unwrap();
        assert_eq!(cut.ids, tokenizer.encode("w7 ", &long[..1000], 6).unwrap().ids);
        assert_eq!((cut.full_len, cut.truncated), (n_words + 3, true));
        assert_eq!(tokenizer.encode("", &long, usize::MAX).unwrap().ids.len(), n_words + 2);
        // No word in the first piece, and one without an end.
        let late = [&" ".repeat(2 << 20), "w5"].concat();
        assert_eq!(tokenizer.encode("", &late, 6).unwrap().ids, [BEGIN, W0 + 5, END]);
        let one_word = "é".repeat(1 << 20);
        assert_eq!(tokenizer.encode("", &one_word, 6).unwrap().ids, [BEGIN, UNK, END]);
    }

    /// The crate's own way, which needs a tokenizer of its own for every maximum length.
    #[test]
    fn truncation_is_that_of_the_crate() {
        let dir = tokenizer_dir();
        let ours = TextTokenizer::from_file(dir.path()).unwrap();
        let mut theirs = Tokenizer::from_file(dir.path().join("tokenizer.json")).unwrap();
        theirs.with_padding(None);
        for max_len in 3..12 {
            theirs.with_truncation(Some(TruncationParams { max_length: max_len, ..Default::default() })).unwrap();
            for n_words in 1..14 {
                let text = (0..n_words).map(|i| format!("w{i}")).collect::<Vec<_>>().join(" ");
                let expected = theirs.encode(text.as_str(), true).unwrap();
                assert_eq!(ours.encode("", &text, max_len).unwrap().ids, expected.get_ids(), "{n_words} in {max_len}");
            }
        }
    }

    #[test]
    fn a_batch_is_its_texts_one_by_one_and_unpadded() {
        let tokenizer = tokenizer();
        let texts: Vec<String> = (0..300).map(|i| format!("w{} ", i % 90).repeat(1 + i % 7)).collect();
        let batch = tokenizer.encode_batch("w9 ", &texts, 6).unwrap();
        assert_eq!(batch.len(), texts.len());
        for (i, encoded) in batch.iter().enumerate() {
            let n_words = (1 + i % 7).min(3);
            let words = std::iter::repeat_n(W0 + (i % 90) as u32, n_words);
            let expected: Vec<u32> = [BEGIN, W0 + 9].into_iter().chain(words).chain([END]).collect();
            assert_eq!(encoded.ids, expected, "text {i}");
            assert_eq!((encoded.full_len, encoded.truncated), (4 + i % 7, 1 + i % 7 > 3), "text {i}");
        }
    }

    #[test]
    fn facts_of_the_file() {
        let dir = tokenizer_dir();
        let tokenizer = TextTokenizer::from_file(dir.path().join("tokenizer.json")).unwrap();
        assert_eq!((tokenizer.vocab_size(), tokenizer.pad_id()), (104, Some(PAD)));
        let same = TextTokenizer::from_file(dir.path()).unwrap();
        assert_eq!(tokenizer.content_hash(), same.content_hash());
        let text = fs::read_to_string(dir.path().join("tokenizer.json")).unwrap();
        write(dir.path(), "tokenizer.json", text.replace("\"w99\"", "\"w100\""));
        assert_ne!(tokenizer.content_hash(), TextTokenizer::from_file(dir.path()).unwrap().content_hash());
    }

    #[test]
    fn long_texts_are_fast() {
        let tokenizer = tokenizer();
        for text in ["w7 ".repeat(33_334), "ก".repeat(100_000)] {
            let start = Instant::now();
            let encoded = tokenizer.encode("", &text, 128).unwrap();
            assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
            assert_eq!(encoded.full_len, text.split_whitespace().count() + 2);
            assert_eq!(*encoded.ids.last().unwrap(), END);
        }
    }

    #[test]
    fn bad_input() {
        let empty = TempDir::new().unwrap();
        let missing = message(TextTokenizer::from_file(empty.path()));
        assert!(
            missing.contains(&empty.path().display().to_string()) && missing.contains("save_pretrained"),
            "{missing}"
        );
        let path = write(empty.path(), "tokenizer.json", "{\"model\": 3}");
        let broken = message(TextTokenizer::from_file(&path));
        assert!(broken.contains("tokenizer.json: not a tokenizer"), "{broken}");
        let short = message(tokenizer().check_max_len("query_max_len", "", 2));
        assert_eq!(short, "query_max_len: 2 leaves no room for text beside 2 special tokens; set at least 3");
        assert!(tokenizer().encode("", "w1", 2).is_err());
    }

    #[test]
    fn a_prefix_that_fills_the_length_is_an_error() {
        let tokenizer = tokenizer();
        // Two special tokens, three of the prefix, and one of the text.
        assert!(tokenizer.check_max_len("query_max_len", "w1 w2 w3 ", 6).is_ok());
        for max_len in [3, 4, 5] {
            let error = message(tokenizer.check_max_len("query_max_len", "w1 w2 w3 ", max_len));
            let expected =
                "leaves no room for text beside 2 special tokens and 3 of the prefix \"w1 w2 w3 \"; set at least 6";
            assert_eq!(error, format!("query_max_len: {max_len} {expected}"));
            // What the error is about: whatever the text, the ids are those of the prefix.
            let ids = |text| tokenizer.encode("w1 w2 w3 ", text, max_len).unwrap().ids;
            assert_eq!(ids("w4"), ids("w5"));
        }
        let ids = |text| tokenizer.encode("w1 w2 w3 ", text, 6).unwrap().ids;
        assert_ne!(ids("w4"), ids("w5"));
    }

    /// Files on which the crate panics; the error is one line with the file's name, and nothing goes to standard error.
    #[test]
    fn panics_of_the_crate_are_errors() {
        let dir = tokenizer_dir();
        let good: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(dir.path().join("tokenizer.json")).unwrap()).unwrap();
        let mut damaged = Vec::new();
        for charsmap in [serde_json::Value::Null, "AAAA".into()] {
            let mut file = good.clone();
            file["normalizer"] = serde_json::json!({ "type": "Precompiled", "precompiled_charsmap": charsmap });
            damaged.push(file);
        }
        // Special tokens that the template names and nobody defines.
        let mut file = good.clone();
        let [begin, text] = [
            serde_json::json!({ "SpecialToken": { "id": "<s>", "type_id": 0 } }),
            serde_json::json!({ "Sequence": { "id": "A", "type_id": 0 } }),
        ];
        file["post_processor"] = serde_json::json!({
            "type": "TemplateProcessing", "single": [begin, text], "pair": [begin, text], "special_tokens": {}
        });
        damaged.push(file);
        for file in damaged {
            let path = write(dir.path(), "tokenizer.json", file.to_string());
            let error = message(TextTokenizer::from_file(&path));
            assert!(error.starts_with(&format!("{}: not a tokenizer that hbt can read (", path.display())), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
