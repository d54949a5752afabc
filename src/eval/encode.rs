//! A model with all it takes to turn texts into embeddings.

use super::Embeddings;
use super::tasks::EvalSet;
use super::{EvalReport, evaluate};
use crate::backend::{Backend, Element, PackedBatch, Purpose, Tensor};
use crate::config::Config;
use crate::data::tokenize::TextTokenizer;
use crate::model::{
    Activations, Encoder, EncoderParams, Keep, Packer, ParamSpec, Reading, Sequences, random_init, specs,
};
use crate::model_dir::{ModelDir, weights};
use crate::{Error, Result, memory, trace};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

/// Texts that are tokenized, sorted and packed together, while those before them are embedded.
///
/// A constant, so that chunks depend on the texts alone; large enough that chunks of any usual size are full and of like
/// lengths.
pub(crate) const WINDOW: usize = 2048;

/// How texts of one role are turned into tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextKind {
    /// Put before every text.
    pub prefix: String,
    /// Length at which texts are cut, in tokens, prefix and special tokens included.
    pub max_len: usize,
}

impl TextKind {
    /// Queries' and passages': the configuration's where it says so, else the model directory's.
    pub fn of(config: &Config, dir: &ModelDir) -> [TextKind; 2] {
        let kind = |prefix: [Option<&String>; 2], max_len: [Option<usize>; 2], default: usize| TextKind {
            prefix: prefix[0].or(prefix[1]).cloned().unwrap_or_default(),
            max_len: max_len[0].or(max_len[1]).unwrap_or(default).min(dir.max_seq_length),
        };
        let [query, passage] = config.prefixes();
        [
            kind([query, dir.query_prefix.as_ref()], [config.query_max_len, dir.query_max_len], Config::QUERY_MAX_LEN),
            kind(
                [passage, dir.passage_prefix.as_ref()],
                [config.passage_max_len, dir.passage_max_len],
                Config::PASSAGE_MAX_LEN,
            ),
        ]
    }
}

/// Leading dimensions that embeddings of size `embedding_size` are cut to, if they are.
///
/// # Errors
/// When they have fewer.
pub(crate) fn truncate_dim(config: &Config, embedding_size: usize) -> Result<Option<usize>> {
    match config.truncate_dim {
        Some(dim) if dim > embedding_size => {
            let message = format!("is {dim}, but the model's embeddings have {embedding_size} dimensions");
            Err(Error::config("truncate_dim", message))
        }
        dim => Ok(dim),
    }
}

/// What encoding keeps from window to window.
struct Encoding<'a, B: Backend> {
    packer: Packer,
    batch: PackedBatch<B>,
    activations: Activations<B>,
    reading: Reading<B, Chunk>,
    /// Those whose embeddings are not all here, in order
    windows: VecDeque<Window>,
    progress: &'a mut (dyn FnMut(usize) + Send),
    sink: &'a mut (dyn FnMut(Embeddings) -> Result<()> + Send),
}

/// Texts that are sorted and packed together.
struct Window {
    /// The number of its first text.
    first: usize,
    /// Its texts as they are packed.
    order: Vec<usize>,
    /// Their embeddings, in the order of the texts.
    values: Vec<f32>,
}

/// What was embedded at once.
struct Chunk {
    /// Texts of the window, as they are packed.
    texts: Range<usize>,
    is_last: bool,
}

/// A loaded model.
pub struct Retriever<B: Backend> {
    /// Where it runs.
    pub backend: B,
    /// Where it came from.
    pub dir: ModelDir,
    /// The network.
    pub encoder: Encoder<B>,
    /// The model's own tokenizer, while it is wanted.
    tokenizer: OnceLock<TextTokenizer>,
    /// How queries are read.
    pub query: TextKind,
    /// How passages are read.
    pub passage: TextKind,
    chunk_tokens: usize,
    /// Leading dimensions that embeddings are cut to
    truncate_dim: Option<usize>,
    /// The seed of the weights, if they are random.
    from_scratch: Option<u64>,
}

impl<B: Backend> Retriever<B> {
    /// Loads the model directory `path` onto `backend`. Pooling, prefixes and maximum lengths are the configuration's
    /// where it names them, else the directory's; `from_scratch` takes random weights instead of the stored ones.
    ///
    /// # Errors
    /// A directory that is incomplete or does not fit hbt, a pooling that nobody names, and no memory left.
    pub fn load(backend: B, path: &Path, config: &Config) -> Result<Self> {
        let dir = ModelDir::open(path)?;
        check_head_size(&backend, &dir)?;
        let from_scratch = config.from_scratch.then_some(config.seed);
        // Each takes half a second and more, and a tokenizer is read by one thread.
        let (tokenizer, weights) = rayon::join(
            || TextTokenizer::from_file(&dir.tokenizer),
            || {
                load_weights(&dir, from_scratch, |spec, values| {
                    let values: Vec<B::E> = values.into_iter().map(B::E::from_f32).collect();
                    Purpose::Weights.during(|| Tensor::from_slice(&backend, &values, &spec.shape))
                })
            },
        );
        let tokenizer = tokenizer?;
        if tokenizer.vocab_size() > dir.config.vocab_size {
            let (tokens, rows) = (tokenizer.vocab_size(), dir.config.vocab_size);
            return Err(Error::file(
                &dir.tokenizer,
                format!("has {tokens} tokens, but config.json says vocab_size {rows}; they do not belong together"),
            ));
        }
        let [query, passage] = TextKind::of(config, &dir);
        tokenizer.check_max_len("query_max_len", query.max_len)?;
        tokenizer.check_max_len("passage_max_len", passage.max_len)?;
        let pooling = dir.pooling_or(config.pooling)?;
        let encoder = Encoder { config: dir.config.clone(), pooling, weights: weights? };
        let (tokenizer, chunk_tokens) = (tokenizer.into(), config.chunk_tokens.or(Config::CHUNK_TOKENS));
        let truncate_dim = truncate_dim(config, encoder.embedding_size())?;
        Ok(Self { backend, dir, encoder, tokenizer, query, passage, chunk_tokens, truncate_dim, from_scratch })
    }

    /// Length of the embeddings that [`Retriever::encode`] gives.
    pub fn embedding_size(&self) -> usize {
        self.truncate_dim.unwrap_or(self.encoder.embedding_size())
    }

    /// The model's own tokenizer, read again if it was [released](Retriever::release_tokenizer).
    ///
    /// # Errors
    /// When its file is gone or has changed.
    pub fn tokenizer(&self) -> Result<&TextTokenizer> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        let tokenizer = TextTokenizer::from_file(&self.dir.tokenizer)?;
        Ok(self.tokenizer.get_or_init(|| tokenizer))
    }

    /// Gives back the tokenizer's memory, 300 MB for a vocabulary of 250,000, until it is next asked for.
    pub fn release_tokenizer(&mut self) {
        if self.tokenizer.take().is_some() {
            memory::trim();
        }
    }

    /// The weights that were loaded, once more and not rounded: the masters of a training run.
    ///
    /// # Errors
    /// As [`Retriever::load`].
    pub fn f32_weights(&self) -> Result<EncoderParams<Tensor<B, f32>>> {
        let upload = |spec: &ParamSpec, values: Vec<f32>| Tensor::from_slice(&self.backend, &values, &spec.shape);
        load_weights(&self.dir, self.from_scratch, upload)
    }

    /// Unit embeddings of `texts`, in their order. `progress` is called with the number of texts done so far.
    ///
    /// # Errors
    /// A text that the tokenizer cannot encode, or no memory left.
    pub fn encode<S: AsRef<str> + Sync>(
        &self,
        kind: &TextKind,
        texts: &[S],
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Embeddings> {
        let dim = self.embedding_size();
        let mut values = Vec::with_capacity(texts.len() * dim);
        self.encode_windows(kind, texts, progress, &mut |window| {
            values.extend_from_slice(window.values());
            Ok(())
        })?;
        Ok(Embeddings::new(dim, values))
    }

    /// As [`Retriever::encode`], but hands the embeddings to `sink` piece by piece, in the order of the texts, and keeps
    /// none of them.
    ///
    /// # Errors
    /// As [`Retriever::encode`], and those of `sink`.
    pub fn encode_windows<S: AsRef<str> + Sync>(
        &self,
        kind: &TextKind,
        texts: &[S],
        progress: &mut (dyn FnMut(usize) + Send),
        sink: &mut (dyn FnMut(Embeddings) -> Result<()> + Send),
    ) -> Result<()> {
        let most_seqs = self.chunk_tokens.min(WINDOW).min(texts.len());
        let mut encoding = Encoding {
            packer: Packer::new(&self.encoder.config, self.chunk_tokens, Keep::Embeddings),
            batch: PackedBatch::new(&self.backend)?,
            activations: Activations::new(&self.backend, &self.encoder)?,
            reading: Reading::new(&self.backend, most_seqs * self.encoder.embedding_size())?,
            windows: VecDeque::new(),
            progress,
            sink,
        };
        let mut tokens = self.tokenize(kind, texts, 0)?;
        for first in (0..texts.len()).step_by(WINDOW) {
            // The next texts' tokens are made wherever a core has nothing to do for the encoder.
            let (embedded, next) = rayon::join(
                || self.encode_tokens(&tokens, first, &mut encoding),
                || self.tokenize(kind, texts, first + WINDOW),
            );
            embedded?;
            tokens = next?;
        }
        self.read(&mut encoding, true)
    }

    /// Tokens of the window of `texts` that begins at `start`; none where the texts end before it.
    fn tokenize<S: AsRef<str> + Sync>(&self, kind: &TextKind, texts: &[S], start: usize) -> Result<Vec<Vec<u32>>> {
        let _range = trace::phase("tokenize");
        let window = &texts[start.min(texts.len())..texts.len().min(start + WINDOW)];
        self.tokenizer()?.encode_batch(&kind.prefix, window, kind.max_len).map_err(|(i, error)| {
            let beginning: String = window[i].as_ref().chars().take(40).collect();
            Error::other(format!("text {} ({beginning:?}): {error}", start + i + 1))
        })
    }

    /// Asks for the embeddings of tokenized texts, of which the first is number `first`, and takes those that come: of the
    /// last chunk when the device has the next window's first to do.
    fn encode_tokens(&self, tokens: &[Vec<u32>], first: usize, encoding: &mut Encoding<B>) -> Result<()> {
        // Longest first: the buffers get their full size at once, and the last chunks are short.
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|&i| (Reverse(tokens[i].len()), i));
        let ids: Vec<i32> = order.iter().flat_map(|&i| &tokens[i]).map(|&id| id as i32).collect();
        let mut cu_seqlens = vec![0];
        cu_seqlens.extend(order.iter().scan(0, |end, &i| {
            *end += tokens[i].len() as i32;
            Some(*end)
        }));
        let packed = encoding.packer.pack(Sequences { ids: &ids, cu_seqlens: &cu_seqlens })?;
        encoding.batch.upload(&self.backend, packed)?;
        let values = vec![0.0; tokens.len() * self.embedding_size()];
        encoding.windows.push_back(Window { first, order, values });
        let n_chunks = encoding.batch.n_chunks();
        for i in 0..n_chunks {
            let Encoding { batch, activations, reading, .. } = &mut *encoding;
            let chunk = batch.chunk(i);
            self.encoder.forward(&self.backend, chunk, None, Keep::Embeddings, activations)?;
            let texts = chunk.first_seq..chunk.first_seq + chunk.n_seqs();
            reading.ask(&self.backend, activations.embeddings(), Chunk { texts, is_last: i + 1 == n_chunks })?;
            self.read(encoding, false)?;
        }
        Ok(())
    }

    /// Puts the embeddings that have come in their places, and hands windows that are complete to the sink.
    fn read(&self, encoding: &mut Encoding<B>, at_the_end: bool) -> Result<()> {
        let (all, dim) = (self.encoder.embedding_size(), self.embedding_size());
        let Encoding { reading, windows, progress, sink, .. } = encoding;
        while let Some((Chunk { texts, is_last }, rows)) = reading.next(&self.backend, at_the_end)? {
            let window = windows.front_mut().expect("chunks belong to windows");
            for (row, &text) in rows.chunks_exact(all).zip(&window.order[texts.clone()]) {
                let value = &mut window.values[text * dim..(text + 1) * dim];
                value.copy_from_slice(&row[..dim]);
                if dim < all {
                    normalize(value);
                }
            }
            progress(window.first + texts.end);
            if is_last {
                let window = windows.pop_front().expect("just seen");
                sink(Embeddings::new(dim, window.values))?;
            }
        }
        Ok(())
    }

    /// Embeds and searches a benchmark; `name` is what the report calls the model.
    ///
    /// # Errors
    /// As [`Retriever::encode`].
    pub fn evaluate(&self, set: &EvalSet, name: &str, progress: &mut (dyn FnMut(usize) + Send)) -> Result<EvalReport> {
        let queries: Vec<&str> = set.queries.iter().map(|q| q.text.as_str()).collect();
        let passages: Vec<&str> = set.passages.iter().map(|p| p.text.as_str()).collect();
        let queries = self.encode(&self.query, &queries, progress)?;
        let n_queries = queries.n_rows();
        let passages = self.encode(&self.passage, &passages, &mut |n| progress(n_queries + n))?;
        evaluate(&self.backend, name, set, &queries, &passages)
    }
}

/// To a length of 1; a row of zeros stays one.
fn normalize(row: &mut [f32]) {
    let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
    row.iter_mut().for_each(|v| *v /= norm);
}

/// Before anything is loaded or written.
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

/// Hands every weight of a model directory to `f`: the stored ones or, given a seed, random ones.
fn load_weights<T>(
    dir: &ModelDir,
    from_scratch: Option<u64>,
    f: impl FnMut(&ParamSpec, Vec<f32>) -> Result<T>,
) -> Result<EncoderParams<T>> {
    match from_scratch {
        Some(seed) => random_init(&specs(&dir.config, dir.dense.as_ref()), seed, f),
        None => weights::load(dir, f),
    }
}
