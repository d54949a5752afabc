//! Conversion of texts to token ids, with the model's own `tokenizer.json`.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rayon::prelude::*;
use tokenizers::{PostProcessor, Tokenizer, TruncationDirection};
use xxhash_rust::xxh3::xxh3_128;

use super::guard::guarded;
use crate::{Error, Result};

/// Names of the padding token in tokenizers whose `tokenizer.json` has no padding section.
const PAD_TOKENS: [&str; 3] = ["<pad>", "[PAD]", "<|pad|>"];

/// Texts that a core tokenizes before it looks for other work: a few milliseconds.
const TEXTS_A_PIECE: usize = 32;

/// Bytes of a text above which it is encoded piece by piece: an encoding takes a hundred times the memory of its text, and
/// its time grows faster than the text. The tokens that are kept are the same; the number of all of them, which only
/// reports show, may differ by one for each piece.
const LONG: usize = 1 << 20;
const PIECE: usize = 1 << 16;

/// A piece of a text, cut before the last blank of [`PIECE`] bytes if there is one, and what is behind it.
fn cut_at_blank(text: &str) -> (&str, &str) {
    if text.len() <= PIECE {
        return (text, "");
    }
    let end = (0..=PIECE).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let blank = text[..end].rfind(char::is_whitespace).filter(|at| *at > 0);
    text.split_at(blank.unwrap_or(end))
}

/// A model's tokenizer, without the padding and truncation that its file may ask for: hbt packs texts instead of
/// padding them, and each call gives its own maximum length.
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    /// What errors name.
    path: PathBuf,
    content_hash: u128,
    pad_id: Option<u32>,
    n_special: usize,
}

/// A tokenized text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, special tokens included, at most as many as the maximum length.
    pub ids: Vec<u32>,
    /// Number of tokens before truncation, special tokens included.
    pub full_len: usize,
    /// Whether the text was truncated.
    pub truncated: bool,
}

impl TextTokenizer {
    /// Reads a `tokenizer.json`, or the one in a model directory.
    ///
    /// # Errors
    /// The file is missing (the message names its directory and how to make one) or is not a tokenizer.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        let bytes = fs::read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::file(
                path.parent().unwrap_or(Path::new(".")),
                "no tokenizer.json here; write one with transformers: \
                 AutoTokenizer.from_pretrained(MODEL, use_fast=True).save_pretrained(DIR)",
            ),
            _ => Error::io("read", &path, e),
        })?;
        Self::from_json(&path, &bytes)
    }

    /// The tokenizer that the file `path` held when it was read.
    ///
    /// # Errors
    /// It is no tokenizer.
    pub fn from_json(path: &Path, bytes: &[u8]) -> Result<Self> {
        let unreadable = |e: String| {
            Error::file(path, format!("not a tokenizer that hbt can read ({e}); write it again with transformers"))
        };
        let tokenizer = guarded(|| Self::from_bytes(bytes, path).map_err(|e| e.to_string())).map_err(unreadable)?;
        // What it cannot do, it shows at the first text; one that it has no token for is no fault.
        guarded(|| Ok(tokenizer.encode_unguarded("", "a", usize::MAX))).map(drop).map_err(unreadable)?;
        Ok(tokenizer)
    }

    fn from_bytes(bytes: &[u8], path: &Path) -> tokenizers::Result<Self> {
        let mut tokenizer = Tokenizer::from_str(std::str::from_utf8(bytes)?)?;
        let pad_id = match tokenizer.get_padding() {
            Some(padding) => Some(padding.pad_id),
            None => PAD_TOKENS.iter().find_map(|token| tokenizer.token_to_id(token)),
        };
        tokenizer.with_padding(None).with_truncation(None)?;
        let n_special = tokenizer.get_post_processor().map_or(0, |p| p.added_tokens(false));
        Ok(TextTokenizer { tokenizer, path: path.to_owned(), content_hash: Self::hash(bytes), pad_id, n_special })
    }

    /// Hash of the tokenizer file's bytes: equal on every machine and in every version of hbt.
    pub fn content_hash(&self) -> u128 {
        self.content_hash
    }

    /// [`TextTokenizer::content_hash`] of a file's bytes.
    pub fn hash(bytes: &[u8]) -> u128 {
        xxh3_128(bytes)
    }

    /// [`TextTokenizer::content_hash`] of a file, without making a tokenizer of it.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn hash_file(path: &Path) -> Result<u128> {
        fs::read(path).map(|bytes| Self::hash(&bytes)).map_err(|e| Error::io("read", path, e))
    }

    /// Number of token ids, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The padding token's id, if the tokenizer has one.
    pub fn pad_id(&self) -> Option<u32> {
        self.pad_id
    }

    /// Fails if `max_len` (the value of the configuration key `key`) leaves no room for a token of the text: every text
    /// would have the same ids.
    ///
    /// # Errors
    /// If it leaves none, or the tokenizer cannot encode the prefix.
    pub fn check_max_len(&self, key: &str, prefix: &str, max_len: usize) -> Result<()> {
        let n_special = self.n_special;
        // Blanks at the prefix's end become part of the text's first token.
        let n_prefix = match prefix.trim_end() {
            "" => 0,
            prefix => self.encode(prefix, "", usize::MAX)?.full_len - n_special,
        };
        if max_len > n_special + n_prefix {
            return Ok(());
        }
        let of_prefix = if n_prefix == 0 { String::new() } else { format!(" and {n_prefix} of the prefix {prefix:?}") };
        let least = n_special + n_prefix + 1;
        let message = format!(
            "{max_len} leaves no room for text beside {n_special} special tokens{of_prefix}; set at least {least}"
        );
        Err(Error::config(key, message))
    }

    /// Token ids of `prefix` followed by `text`, cut at the end to `max_len` tokens. The special tokens stay: the
    /// cut is made before they are added.
    ///
    /// # Errors
    /// `max_len` leaves no room beside the special tokens, or the tokenizer has no token, not even an unknown one, for
    /// this text.
    pub fn encode(&self, prefix: &str, text: &str, max_len: usize) -> Result<Encoded> {
        let fail =
            |e: String| Error::file(&self.path, format!("fails at this text ({e}); write it again with transformers"));
        guarded(|| Ok(self.encode_unguarded(prefix, text, max_len))).map_err(fail)?
    }

    fn tokens(&self, prefix: &str, text: &str) -> tokenizers::Result<tokenizers::Encoding> {
        match prefix {
            "" => self.tokenizer.encode_fast(text, false),
            _ => self.tokenizer.encode_fast(format!("{prefix}{text}"), false),
        }
    }

    fn encode_unguarded(&self, prefix: &str, text: &str, max_len: usize) -> Result<Encoded> {
        if max_len <= self.n_special {
            return Err(Error::other(format!("{max_len} tokens leave no room beside {} special ones", self.n_special)));
        }
        let fail = |e: tokenizers::Error| Error::other(format!("the tokenizer cannot encode this text: {e}"));
        let (head, mut rest) = if text.len() > LONG { cut_at_blank(text) } else { (text, "") };
        let mut encoding = self.tokens(prefix, head).map_err(fail)?;
        if !rest.is_empty() && encoding.len() + self.n_special <= max_len {
            // Blanks, or one long word, or all of it is wanted.
            encoding = self.tokens(prefix, text).map_err(fail)?;
            rest = "";
        }
        let mut full_len = encoding.len() + self.n_special;
        while !rest.is_empty() {
            let (piece, more) = cut_at_blank(rest);
            full_len += self.tokens("", piece).map_err(fail)?.len();
            rest = more;
        }
        encoding.truncate(max_len - self.n_special, 0, TruncationDirection::Right);
        // The truncated part is kept as `overflowing`, and would get special tokens of its own.
        drop(encoding.take_overflowing());
        let encoding = self.tokenizer.post_process(encoding, None, true).map_err(fail)?;
        let ids = encoding.get_ids().to_vec();
        if ids.is_empty() {
            return Err(Error::other("the tokenizer makes no token of this text; remove it"));
        }
        Ok(Encoded { ids, full_len, truncated: full_len > max_len })
    }

    /// Many texts, in their order, on all cores by [`encode`](Self::encode).
    ///
    /// # Errors
    /// The first text that cannot be encoded, and why.
    pub fn encode_batch<S: AsRef<str> + Sync>(
        &self,
        prefix: &str,
        texts: &[S],
        max_len: usize,
    ) -> std::result::Result<Vec<Encoded>, (usize, Error)> {
        let encode = |text: &S| self.encode(prefix, text.as_ref(), max_len);
        // Small pieces: a core that helps here between two operations of the encoder returns soon.
        let all: Vec<Result<Encoded>> = texts.par_iter().with_max_len(TEXTS_A_PIECE).map(encode).collect();
        all.into_iter().enumerate().map(|(i, encoded)| encoded.map_err(|error| (i, error))).collect()
    }
}
