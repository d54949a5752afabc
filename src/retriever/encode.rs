//! Embedding of texts, window by window: tokenized, sorted, packed, embedded and read back while the next ones run.

use super::{Embeddings, Retriever, TextKind};
use crate::backend::{Backend, PackedBatch};
use crate::data::tokenize::Encoded;
use crate::model::{Activations, Keep, Packer, Reading, Sequences};
use crate::{Error, Result, trace};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::ops::Range;

/// Texts that are tokenized, sorted and packed together, while those before them are embedded.
///
/// A constant, so that chunks depend on the texts alone; large enough that chunks of any usual size are full and of like
/// lengths.
pub const WINDOW: usize = 2048;

/// The windows of some texts among others, in order.
pub(crate) fn windows(texts: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = texts.end;
    texts.step_by(WINDOW).map(move |first| first..end.min(first + WINDOW))
}

/// What is to be known of texts that were embedded, beside their embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Number of texts.
    pub n_texts: u64,
    /// Number of those that were longer than the maximum length, and cut.
    pub n_cut: u64,
    /// Whether texts that differ in more than case and punctuation, or behind the cut, all have the same embedding: the model
    /// has collapsed.
    pub is_collapsed: bool,
}

/// The warning about [`Summary::is_collapsed`].
pub const COLLAPSED: &str = "all texts have the same embedding, so they cannot be told apart: the model has collapsed, its \
    weights are broken, or it knows none of the words; use an earlier checkpoint or a lower learning_rate";

/// Embeddings whose squared distance is at most this are alike: their cosine is above 0.9999. Encoders that are merely
/// untrained come near it (0.99), and differ in some pair of texts.
const ALIKE: f32 = 2e-4;

/// Looks for a text whose embedding is not that of the first one.
#[derive(Default)]
pub(crate) struct Collapse {
    /// The first text and its embedding.
    first: Option<(String, Vec<f32>)>,
    texts_differ: bool,
    embeddings_differ: bool,
}

impl Collapse {
    /// Looks at texts and their embeddings, of unit length.
    pub(crate) fn look<'a>(&mut self, texts: impl Iterator<Item = &'a str>, embeddings: &Embeddings) {
        for (text, embedding) in texts.zip(embeddings.values().chunks_exact(embeddings.dim())) {
            if self.embeddings_differ {
                return;
            }
            let (first, of_first) = self.first.get_or_insert_with(|| (text.to_owned(), embedding.to_vec()));
            self.texts_differ |= !words(text).eq(words(first));
            let distance: f32 = of_first.iter().zip(embedding).map(|(a, b)| (a - b) * (a - b)).sum();
            self.embeddings_differ = distance > ALIKE;
        }
    }

    pub(crate) fn is_found(&self) -> bool {
        self.texts_differ && !self.embeddings_differ
    }
}

/// What every tokenizer tells apart.
fn words(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase)
}

/// State of encoding, kept from window to window.
struct Encoding<'a, B: Backend> {
    packer: Packer,
    batch: PackedBatch<B>,
    activations: Activations<B>,
    reading: Reading<B, Chunk>,
    /// Windows whose embeddings have not all arrived, in order
    windows: VecDeque<Window>,
    progress: &'a mut (dyn FnMut(usize) + Send),
    sink: &'a mut (dyn FnMut(Embeddings) -> Result<()> + Send),
}

/// Texts that are sorted and packed together.
struct Window {
    /// Number of texts in the windows before.
    n_before: usize,
    /// Numbers of its texts, in the order of packing.
    order: Vec<usize>,
    /// Embeddings, in the order of the texts.
    values: Vec<f32>,
}

/// Texts that are embedded at once.
struct Chunk {
    /// Range of [`Window::order`].
    texts: Range<usize>,
    is_last: bool,
}

impl<B: Backend> Retriever<B> {
    /// Unit embeddings of `texts`, in their order. `progress` is called with the number of texts done so far.
    ///
    /// # Errors
    /// A text that the tokenizer cannot encode, an embedding that is not finite, or no memory left.
    pub fn encode<S: AsRef<str> + Sync>(
        &self,
        kind: &TextKind,
        texts: &[S],
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Embeddings> {
        self.encode_all(kind, texts, progress).map(|(embeddings, _)| embeddings)
    }

    /// [`Retriever::encode`] that says more about the texts.
    ///
    /// # Errors
    /// Those of [`Retriever::encode`].
    pub fn encode_all<S: AsRef<str> + Sync>(
        &self,
        kind: &TextKind,
        texts: &[S],
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<(Embeddings, Summary)> {
        let dim = self.embedding_size();
        let mut values = Vec::with_capacity(texts.len() * dim);
        let summary = self.encode_windows(kind, texts, progress, &mut |window| {
            values.extend_from_slice(window.values());
            Ok(())
        })?;
        Ok((Embeddings::new(dim, values), summary))
    }

    /// [`Retriever::encode`] that hands the embeddings to `sink` window by window, in the order of the texts, and keeps
    /// none of them.
    ///
    /// # Errors
    /// Those of [`Retriever::encode`] and of `sink`.
    pub fn encode_windows<S: AsRef<str> + Sync>(
        &self,
        kind: &TextKind,
        texts: &[S],
        progress: &mut (dyn FnMut(usize) + Send),
        sink: &mut (dyn FnMut(Embeddings) -> Result<()> + Send),
    ) -> Result<Summary> {
        let windows: Vec<Range<usize>> = windows(0..texts.len()).collect();
        self.encode_these(kind, texts, &windows, progress, sink)
    }

    /// [`Retriever::encode_windows`] of those of the texts that are in these windows, of [`windows`]' length at most.
    pub(super) fn encode_these<S: AsRef<str> + Sync>(
        &self,
        kind: &TextKind,
        texts: &[S],
        windows: &[Range<usize>],
        progress: &mut (dyn FnMut(usize) + Send),
        sink: &mut (dyn FnMut(Embeddings) -> Result<()> + Send),
    ) -> Result<Summary> {
        let mut collapse = Collapse::default();
        let (mut n_cut, mut to_come) = (0, windows.iter());
        let sink = &mut |embeddings: Embeddings| {
            let window = to_come.next().expect("as many windows as were asked for");
            require_finite(&texts[window.clone()], &embeddings, window.start)?;
            collapse.look(texts[window.clone()].iter().map(AsRef::as_ref), &embeddings);
            sink(embeddings)
        };
        let n_texts: usize = windows.iter().map(Range::len).sum();
        let most_seqs = self.settings.chunk_tokens.min(WINDOW).min(n_texts);
        let mut encoding = Encoding {
            packer: Packer::new(&self.encoder.config, self.settings.chunk_tokens, Keep::Embeddings),
            batch: PackedBatch::new(&self.backend)?,
            activations: Activations::new(&self.backend, &self.encoder)?,
            reading: Reading::new(&self.backend, most_seqs * self.encoder.embedding_size())?,
            windows: VecDeque::new(),
            progress,
            sink,
        };
        let tokenize = |window: usize| match windows.get(window) {
            Some(window) => self.tokenize(kind, texts, window.clone()),
            None => Ok(Vec::new()),
        };
        let (mut tokens, mut n_before) = (tokenize(0)?, 0);
        for number in 0..windows.len() {
            // The next texts are tokenized on cores that have nothing to do for the encoder.
            let (embedded, next) =
                rayon::join(|| self.encode_tokens(&tokens, n_before, &mut encoding), || tokenize(number + 1));
            embedded?;
            n_before += tokens.len();
            n_cut += tokens.iter().filter(|encoded| encoded.truncated).count() as u64;
            tokens = next?;
        }
        self.read(&mut encoding, true)?;
        let n_texts = n_texts as u64;
        Ok(Summary { n_texts, n_cut, is_collapsed: collapse.is_found() && n_texts - n_cut >= 2 })
    }

    /// Token ids of a window of `texts`.
    fn tokenize<S: AsRef<str> + Sync>(
        &self,
        kind: &TextKind,
        texts: &[S],
        window: Range<usize>,
    ) -> Result<Vec<Encoded>> {
        let _range = trace::phase("tokenize");
        let (start, texts) = (window.start, &texts[window]);
        self.tokenizer()?
            .encode_batch(&kind.prefix, texts, kind.max_len)
            .map_err(|(i, error)| Error::other(format!("{}: {error}", named(start + i, texts[i].as_ref()))))
    }

    /// Starts to embed tokenized texts, with `n_before` before them, and takes embeddings that have arrived: the last chunk's
    /// once the device works on the next window's first.
    fn encode_tokens(&self, tokens: &[Encoded], n_before: usize, encoding: &mut Encoding<B>) -> Result<()> {
        // Longest first: the buffers get their full size at once, and the last chunks are short.
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|&i| (Reverse(tokens[i].ids.len()), i));
        let ids: Vec<i32> = order.iter().flat_map(|&i| &tokens[i].ids).map(|&id| id as i32).collect();
        let mut cu_seqlens = vec![0];
        cu_seqlens.extend(order.iter().scan(0, |end, &i| {
            *end += tokens[i].ids.len() as i32;
            Some(*end)
        }));
        let packed = encoding.packer.pack(Sequences::new(&ids, &cu_seqlens))?;
        encoding.batch.upload(&self.backend, packed)?;
        let values = vec![0.0; tokens.len() * self.embedding_size()];
        encoding.windows.push_back(Window { n_before, order, values });
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

    /// Puts arrived embeddings in their places, and hands complete windows to the sink.
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
            progress(window.n_before + texts.end);
            if is_last {
                let window = windows.pop_front().expect("just seen");
                sink(Embeddings::new(dim, window.values))?;
            }
        }
        Ok(())
    }
}

/// A NaN would be written as null, and compares as worse than everything, so that a broken model could look perfect.
fn require_finite<S: AsRef<str>>(texts: &[S], embeddings: &Embeddings, first: usize) -> Result<()> {
    let is_finite = |row: &[f32]| row.iter().all(|x| x.is_finite());
    let Some(i) = embeddings.values().chunks_exact(embeddings.dim()).position(|row| !is_finite(row)) else {
        return Ok(());
    };
    let text = named(first + i, texts[i].as_ref());
    Err(Error::other(format!(
        "{text}: its embedding is not finite: the model's weights are broken or training diverged; use an earlier \
         checkpoint or a lower learning_rate"
    )))
}

/// How messages name a text: its number, from 1, and how it begins.
fn named(index: usize, text: &str) -> String {
    let beginning: String = text.chars().take(40).collect();
    format!("text {} ({beginning:?})", index + 1)
}

/// Scales a row to unit length; a row of zeros stays zero. The smallest length that is divided by is PyTorch's.
pub(crate) fn normalize(row: &mut [f32]) {
    let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
    row.iter_mut().for_each(|v| *v /= norm);
}
