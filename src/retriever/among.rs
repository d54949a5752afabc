//! Embeddings that several processes make together.

use super::encode::{Collapse, Summary, WINDOW};
use super::{Embeddings, Retriever, TextKind};
use crate::Result;
use crate::backend::Backend;
use crate::dist::Peers;
use std::ops::Range;

impl<B: Backend> Retriever<B> {
    /// [`Retriever::encode_all`] by all `peers`, which ask for the same: each embeds every so many windows of texts, and all get
    /// everything. A window's embeddings depend on its texts alone, so these are the bytes of one process.
    ///
    /// # Errors
    /// Those of [`Retriever::encode`], and a process that is gone.
    pub fn encode_among(
        &self,
        peers: &Peers,
        kind: &TextKind,
        texts: &[&str],
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<(Embeddings, Summary)> {
        if peers.size() == 1 {
            return self.encode_all(kind, texts, progress);
        }
        let (dim, n) = (self.embedding_size(), texts.len());
        let own: Vec<&str> = windows(peers, peers.rank(), n).flat_map(|window| &texts[window]).copied().collect();
        let (embeddings, summary) = self.encode_all(kind, &own, &mut |done| {
            peers.progress().advance();
            progress((done * peers.size()).min(n));
        })?;
        let lens: Vec<usize> =
            (0..peers.size()).map(|rank| dim * windows(peers, rank, n).map(|w| w.len()).sum::<usize>()).collect();
        let mut gathered = vec![0.0; n * dim];
        peers.all_gather(embeddings.values(), &lens, &mut gathered)?;
        let mut values = vec![0.0; n * dim];
        let mut rest = &gathered[..];
        for window in (0..peers.size()).flat_map(|rank| windows(peers, rank, n)) {
            let of_window = rest.split_off(..window.len() * dim).unwrap_or_default();
            values[window.start * dim..window.end * dim].copy_from_slice(of_window);
        }
        let embeddings = Embeddings::new(dim, values);
        let cut = peers.all_gather_bytes(&summary.n_cut.to_le_bytes())?;
        let n_cut: u64 = cut.iter().map(|bytes| bytes[..].try_into().map_or(0, u64::from_le_bytes)).sum();
        let mut collapse = Collapse::default();
        collapse.look(texts.iter().copied(), &embeddings);
        let n_texts = n as u64;
        let is_collapsed = collapse.is_found() && n_texts - n_cut >= 2;
        Ok((embeddings, Summary { n_texts, n_cut, is_collapsed }))
    }
}

/// Windows that each process embeds before all get them, where they are handed on one after the other.
const WINDOWS_AT_ONCE: usize = 16;

impl<B: Backend> Retriever<B> {
    /// [`Retriever::encode_windows`] by all `peers`, which ask for the same and all get everything, in larger windows.
    ///
    /// # Errors
    /// Those of [`Retriever::encode_among`] and of `sink`.
    pub fn encode_windows_among(
        &self,
        peers: &Peers,
        kind: &TextKind,
        texts: &[&str],
        progress: &mut (dyn FnMut(usize) + Send),
        sink: &mut (dyn FnMut(Embeddings) -> Result<()> + Send),
    ) -> Result<Summary> {
        if peers.size() == 1 {
            return self.encode_windows(kind, texts, progress, sink);
        }
        let (mut n_cut, mut n_done, mut collapse) = (0, 0, Collapse::default());
        for block in texts.chunks(WINDOWS_AT_ONCE * peers.size() * WINDOW) {
            let (embeddings, summary) = self.encode_among(peers, kind, block, &mut |n| progress(n_done + n))?;
            collapse.look(block.iter().copied(), &embeddings);
            n_cut += summary.n_cut;
            n_done += block.len();
            sink(embeddings)?;
        }
        let n_texts = texts.len() as u64;
        Ok(Summary { n_texts, n_cut, is_collapsed: collapse.is_found() && n_texts - n_cut >= 2 })
    }
}

/// The windows of `n` texts that a rank embeds.
fn windows(peers: &Peers, rank: usize, n: usize) -> impl Iterator<Item = Range<usize>> {
    (rank * WINDOW..n).step_by(peers.size() * WINDOW).map(move |first| first..n.min(first + WINDOW))
}
