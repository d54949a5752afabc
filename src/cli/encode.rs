//! Options of `hbt encode`.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ComputeArgs, ConfigArgs, TraceArgs};
use crate::Result;
use crate::config::Draft;

/// Options of `hbt encode`.
#[derive(Debug, Args)]
pub struct EncodeArgs {
    /// Model directory or Hugging Face hub id [default: a small built-in encoder]
    #[arg(long, value_name = "DIR|ID")]
    pub model: Option<String>,

    /// Texts: one on each line, or JSON Lines with a field "text", behind "title" if there is one; ids such as "_id" are
    /// kept; - is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub input: PathBuf,

    /// How the input is read: text, a text on each line; jsonl
    /// [default: jsonl for an input called .jsonl or that begins with a brace, else text]
    #[arg(long, value_enum, hide_possible_values = true)]
    pub input_format: Option<InputFormat>,

    /// Field of the JSON Lines to embed, alone [default: "text" behind "title"; for queries also "query"]
    #[arg(long, value_name = "NAME")]
    pub field: Option<String>,

    /// Where the embeddings go; - is standard output, jsonl only
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,

    /// Replace the output even if it is a file that does not look like one of this command
    #[arg(long)]
    pub overwrite: bool,

    /// What the texts are, query or passage: decides the prefix that is put before each, and the maximum length
    #[arg(long = "as", value_name = "KIND", value_enum, default_value_t = EncodeAs::Passage, hide_possible_values = true)]
    pub encode_as: EncodeAs,

    /// npy: one float32 array, a row for each text; jsonl: {"text", "embedding"} and the ids on each line
    /// [default: npy for an output called .npy, else jsonl]
    #[arg(long, value_enum, hide_possible_values = true)]
    pub format: Option<EncodeFormat>,

    /// The trace.
    #[command(flatten)]
    pub trace: TraceArgs,

    /// Device and precision.
    #[command(flatten)]
    pub compute: ComputeArgs,

    /// Configuration file and `--set`.
    #[command(flatten)]
    pub config: ConfigArgs,
}

impl EncodeArgs {
    /// The configuration typed.
    pub fn draft(&self) -> Result<Draft> {
        self.compute.apply(self.config.draft(&[("--model", "model", &self.model)])?)
    }
}

/// What the texts given to `hbt encode` are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EncodeAs {
    /// `query_prefix` and `query_max_len` hold.
    Query,
    /// `passage_prefix` and `passage_max_len` hold.
    Passage,
}

/// Form in which `hbt encode` reads texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// One on each line.
    Text,
    /// One JSON object on each line.
    Jsonl,
}

impl fmt::Display for EncodeAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EncodeAs::Query => "queries",
            EncodeAs::Passage => "passages",
        })
    }
}

impl fmt::Display for EncodeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EncodeFormat::Npy => "npy",
            EncodeFormat::Jsonl => "jsonl",
        })
    }
}

/// Form in which `hbt encode` writes embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EncodeFormat {
    /// One NumPy array `(n_texts, hidden_size)` of f32.
    Npy,
    /// JSON Lines, `{"text", "embedding"}`.
    Jsonl,
}
