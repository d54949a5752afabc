//! Embedding of texts, window by window: tokenized, sorted, packed, embedded and read back while the next ones run.

use super::{Embeddings, Retriever, TextKind};
use crate::backend::{Backend, PackedBatch};
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
    /// Number of its first text.
    first: usize,
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
    ) -> Result<()> {
        let most_seqs = self.settings.chunk_tokens.min(WINDOW).min(texts.len());
        let mut encoding = Encoding {
            packer: Packer::new(&self.encoder.config, self.settings.chunk_tokens, Keep::Embeddings),
            batch: PackedBatch::new(&self.backend)?,
            activations: Activations::new(&self.backend, &self.encoder)?,
            reading: Reading::new(&self.backend, most_seqs * self.encoder.embedding_size())?,
            windows: VecDeque::new(),
            progress,
            sink,
        };
        let mut tokens = self.tokenize(kind, texts, 0)?;
        for first in (0..texts.len()).step_by(WINDOW) {
            // The next texts are tokenized on cores that have nothing to do for the encoder.
            let (embedded, next) = rayon::join(
                || self.encode_tokens(&tokens, first, &mut encoding),
                || self.tokenize(kind, texts, first + WINDOW),
            );
            embedded?;
            tokens = next?;
        }
        self.read(&mut encoding, true)
    }

    /// Token ids of the window of `texts` that begins at `start`; empty after the last text.
    fn tokenize<S: AsRef<str> + Sync>(&self, kind: &TextKind, texts: &[S], start: usize) -> Result<Vec<Vec<u32>>> {
        let _range = trace::phase("tokenize");
        let window = &texts[start.min(texts.len())..texts.len().min(start + WINDOW)];
        self.tokenizer()?.encode_batch(&kind.prefix, window, kind.max_len).map_err(|(i, error)| {
            let beginning: String = window[i].as_ref().chars().take(40).collect();
            Error::other(format!("text {} ({beginning:?}): {error}", start + i + 1))
        })
    }

    /// Starts to embed tokenized texts, of which the first is number `first`, and takes embeddings that have arrived:
    /// the last chunk's once the device works on the next window's first.
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
            progress(window.first + texts.end);
            if is_last {
                let window = windows.pop_front().expect("just seen");
                sink(Embeddings::new(dim, window.values))?;
            }
        }
        Ok(())
    }
}

/// Scales a row to unit length; a row of zeros stays zero.
fn normalize(row: &mut [f32]) {
    let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
    row.iter_mut().for_each(|v| *v /= norm);
}
