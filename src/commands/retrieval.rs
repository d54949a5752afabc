//! Retrieval tasks of `hbt eval`: a directory with corpus, queries and judgements, and mteb's tasks.

use super::device::{Job, instructions_of, on_device, resolve, search_on};
use super::model::{kernels_of, model_dir};
use hbt::backend::Backend;
use hbt::backend::cuda::Kernels;
use hbt::cache::cache_dir;
use hbt::cli::EvalArgs;
use hbt::config::{Config, Precision};
use hbt::data::collection::{self, Collection, Collections};
use hbt::error::counted;
use hbt::eval::mteb::files::{Entry, Phase, Settings, TaskResult};
use hbt::eval::mteb::folder::{Earlier, ModelFolder, ModelMeta, ModelName};
use hbt::eval::mteb::numbers::retrieval_numbers;
use hbt::eval::mteb::rankings::{Predictions, TrecRun};
use hbt::eval::retrieval::{CorpusSearch, Vectors, outcomes, ranking};
use hbt::eval::vectors::{FileVectors, ModelVectors};
use hbt::model_dir::ModelDir;
use hbt::progress::{Counter, say};
use hbt::retriever::kept::KeptEmbeddings;
use hbt::retriever::{Retriever, RetrieverSettings};
use hbt::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
