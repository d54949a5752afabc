//! A retriever: a model with its tokenizer on a device, which turns texts into embeddings.

pub(crate) mod among;
mod embeddings;
pub mod encode;
pub mod kept;
mod settings;

pub use embeddings::Embeddings;
pub use encode::{COLLAPSED, Summary};
pub use settings::{RetrieverSettings, TextKind};

use crate::backend::{Backend, Element, Purpose, Tensor};
use crate::data::tokenize::TextTokenizer;
use crate::dist::Peers;
use crate::model::{Encoder, EncoderParams, ParamSpec, random_init, specs};
use crate::model_dir::save::pieces;
use crate::model_dir::{Carried, ModelDir, weights};
use crate::{Error, Result, memory};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// A loaded model.
pub struct Retriever<B: Backend> {
    /// The device.
    pub backend: B,
    /// Directory of the model.
    pub dir: ModelDir,
    /// The network.
    pub encoder: Encoder<B>,
    /// The model's own tokenizer, unless it is released.
    tokenizer: OnceLock<TextTokenizer>,
    /// What outlasts the directory, if it was asked for.
    carried: Option<Carried>,
    /// Settings of reading and embedding.
    pub settings: RetrieverSettings,
}

impl<B: Backend> Retriever<B> {
    /// Loads the model in `dir` onto `backend`.
    ///
    /// # Errors
    /// If the directory is incomplete or does not fit hbt, lengths leave no room beside the prefixes, or there is no
    /// memory left.
    pub fn load(backend: B, dir: ModelDir, settings: RetrieverSettings) -> Result<Self> {
        Self::load_among(&Peers::alone(), backend, dir, settings)
    }

    /// The same for several processes, with the weights of the first: the directories of others need have none.
    ///
    /// # Errors
    /// Those of [`Retriever::load`], and a process that is gone.
    pub fn load_among(peers: &Peers, backend: B, dir: ModelDir, settings: RetrieverSettings) -> Result<Self> {
        check_head_size(&backend, &dir)?;
        let embedding_size = dir.embedding_size();
        assert!(
            settings.truncate_dim.is_none_or(|dim| dim <= embedding_size),
            "embeddings have {embedding_size} dimensions"
        );
        let read_tokenizer = || TextTokenizer::from_file(&dir.tokenizer);
        let read_weights = || {
            load_weights(peers, &dir, settings.from_scratch, |spec, values| {
                let values: Vec<B::E> = values.into_iter().map(B::E::from_f32).collect();
                Purpose::Weights.during(|| Tensor::from_slice(&backend, &values, &spec.shape))
            })
        };
        let (tokenizer, weights) = match peers.size() {
            // Each takes half a second or more, and reading a tokenizer uses only one thread.
            1 => rayon::join(read_tokenizer, read_weights),
            // A thread that others' work waits for is not to wait for other processes.
            _ => (read_tokenizer(), read_weights()),
        };
        let tokenizer = tokenizer?;
        if tokenizer.vocab_size() > dir.config.vocab_size {
            let (tokens, rows) = (tokenizer.vocab_size(), dir.config.vocab_size);
            return Err(Error::file(
                &dir.tokenizer,
                format!("has {tokens} tokens, but config.json says vocab_size {rows}; they do not belong together"),
            ));
        }
        tokenizer.check_max_len("query_max_len", &settings.query.prefix, settings.query.max_len)?;
        tokenizer.check_max_len("passage_max_len", &settings.passage.prefix, settings.passage.max_len)?;
        let encoder = Encoder { config: dir.config.clone(), pooling: settings.pooling, weights: weights? };
        Ok(Self { backend, dir, encoder, tokenizer: tokenizer.into(), carried: None, settings })
    }

    /// Size of the embeddings of [`Retriever::encode`].
    pub fn embedding_size(&self) -> usize {
        self.settings.truncate_dim.unwrap_or(self.encoder.embedding_size())
    }

    /// The model's own tokenizer, read again if it was [released](Retriever::release_tokenizer).
    ///
    /// # Errors
    /// If its file is gone or has changed.
    pub fn tokenizer(&self) -> Result<&TextTokenizer> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        let tokenizer = match &self.carried {
            Some(carried) => TextTokenizer::from_json(&self.dir.tokenizer, &carried.tokenizer)?,
            None => TextTokenizer::from_file(&self.dir.tokenizer)?,
        };
        Ok(self.tokenizer.get_or_init(|| tokenizer))
    }

    /// Reads all that saving the model and embedding with it will take, so that its directory may go away.
    ///
    /// # Errors
    /// If a file cannot be read, or has changed since the model was loaded.
    pub fn carry(&mut self) -> Result<()> {
        let carried = Carried::read(&self.dir)?;
        let hash = self.tokenizer.get().map(TextTokenizer::content_hash);
        if hash.is_some_and(|hash| hash != TextTokenizer::hash(&carried.tokenizer)) {
            return Err(Error::file(&self.dir.tokenizer, "changed while the model was loaded; run the command again"));
        }
        self.carried = Some(carried);
        Ok(())
    }

    /// What a save takes over from the model's directory.
    ///
    /// # Panics
    /// If it was not [read](Retriever::carry).
    pub fn carried(&self) -> &Carried {
        self.carried.as_ref().expect("read before the first step")
    }

    /// Frees the tokenizer's memory, 300 MB for a vocabulary of 250,000, until it is asked for again.
    pub fn release_tokenizer(&mut self) {
        if self.tokenizer.take().is_some() {
            memory::trim();
        }
    }

    /// What embeddings depend on besides the weights, in words, by name, where queries and passages are embedded as these two
    /// kinds: what files of results say of them.
    ///
    /// # Errors
    /// If the tokenizer is gone.
    pub fn in_words(&self, [query, passage]: [&TextKind; 2]) -> Result<BTreeMap<String, String>> {
        let RetrieverSettings { pooling, truncate_dim, .. } = &self.settings;
        let words = [
            ("precision", B::E::NAME.to_owned()),
            ("pooling", format!("{pooling:?}").to_lowercase()),
            ("queries", query.in_words()),
            ("documents", passage.in_words()),
            ("dimensions", truncate_dim.map_or_else(|| "all".to_owned(), |dim| dim.to_string())),
            ("tokenizer", format!("{:032x}", self.tokenizer()?.content_hash())),
        ];
        Ok(words.map(|(name, value)| (name.to_owned(), value)).into())
    }

    /// Identifies what embeddings depend on beside the text, its prefix and its length: the weights as they are now, tokenizer,
    /// pooling, number type, the device or its `instructions`, and the version of hbt.
    ///
    /// # Errors
    /// If a copy from the device fails, or the tokenizer is gone.
    pub fn content_key(&self, instructions: Option<&str>) -> Result<String> {
        let mut weights = Xxh3::new();
        for weight in self.encoder.weights.iter() {
            for part in pieces(weight.len()) {
                weights.update(bytemuck::cast_slice(&weight.part_to_vec(&self.backend, part)?));
            }
        }
        let RetrieverSettings { pooling, truncate_dim, .. } = self.settings;
        let depends_on = format!(
            "hbt {}, {} on {}, {}, {:?}, {pooling:?}, {truncate_dim:?}, weights {:032x}, tokenizer {:032x}",
            env!("CARGO_PKG_VERSION"),
            B::E::NAME,
            // A processor computes the same with any number of threads, which its name says.
            instructions.map_or_else(|| self.backend.name(), str::to_owned),
            // Not the configuration that came of it, which has addresses of functions.
            Value::Object(self.dir.config_json.clone()),
            self.dir.dense,
            weights.digest128(),
            self.tokenizer()?.content_hash(),
        );
        Ok(format!("{:032x}", xxh3_128(depends_on.as_bytes())))
    }

    /// The loaded weights in f32, read again without rounding: the masters of a training run. Among `peers`, all ask for them,
    /// and get those of the first.
    ///
    /// # Errors
    /// Those of [`Retriever::load_among`].
    pub fn f32_weights(&self, peers: &Peers) -> Result<EncoderParams<Tensor<B, f32>>> {
        let upload = |spec: &ParamSpec, values: Vec<f32>| Tensor::from_slice(&self.backend, &values, &spec.shape);
        load_weights(peers, &self.dir, self.settings.from_scratch, upload)
    }
}

/// Checks the size of attention heads, before anything is loaded or written.
fn check_head_size<B: Backend>(backend: &B, dir: &ModelDir) -> Result<()> {
    let (hidden, heads) = (dir.config.hidden_size, dir.config.num_attention_heads);
    let size = dir.config.head_size();
    if size <= B::MAX_HEAD_SIZE {
        return Ok(());
    }
    let message = format!(
        "hidden_size {hidden} / num_attention_heads {heads} makes heads of {size}, but {} computes heads of up to {}; set \
         device = \"cpu\", or take another model",
        backend.name(),
        B::MAX_HEAD_SIZE
    );
    Err(Error::file(dir.transformer.join("config.json"), message))
}

/// Hands every weight of a model directory to `f`: the stored ones or, given a seed, random ones; in all processes those of the
/// first, one parameter after the other.
fn load_weights<T>(
    peers: &Peers,
    dir: &ModelDir,
    from_scratch: Option<u64>,
    mut f: impl FnMut(&ParamSpec, Vec<f32>) -> Result<T>,
) -> Result<EncoderParams<T>> {
    let specs = specs(&dir.config, dir.dense.as_ref());
    let mut f = |spec: &ParamSpec, mut values: Vec<f32>| {
        peers.broadcast(0, &mut values)?;
        f(spec, values)
    };
    if peers.rank() > 0 {
        return specs.try_map(|spec| f(spec, vec![0.0; spec.len()]));
    }
    let Some(seed) = from_scratch else { return weights::load(dir, f) };
    // No weights are there to compare the sizes with.
    let largest = specs.iter().map(|spec| 4 * spec.len() as u64).max().unwrap_or(0);
    if let Some(left) = memory::available().filter(|&left| largest > left) {
        let message = format!(
            "describes weights of {} in one matrix, and {} of memory are left",
            memory::gib(largest),
            memory::gib(left)
        );
        return Err(Error::file(dir.transformer.join("config.json"), message));
    }
    random_init(&specs, seed, f)
}
