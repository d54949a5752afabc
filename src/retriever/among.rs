//! Embeddings that several processes make together.

use super::encode::{Collapse, Summary, windows};
use super::{Embeddings, Retriever, TextKind};
use crate::backend::Backend;
use crate::dist::Peers;
use crate::{Error, Result};
use std::ops::Range;
use xxhash_rust::xxh3::Xxh3;

/// Windows that each process embeds before all get them, where they are handed on one after the other.
const WINDOWS_AT_ONCE: usize = 16;

impl<B: Backend> Retriever<B> {
    /// [`Retriever::encode_all`] by all `peers`, which ask for the same: each embeds every so many windows of texts, and all get
    /// everything. A window's embeddings depend on its texts alone, so these are the bytes of one process.
    ///
    /// # Errors
    /// Those of [`Retriever::encode`], a process that asks for something else, and one that is gone.
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
        let (dim, mut values) = (self.embedding_size(), Vec::with_capacity(texts.len() * self.embedding_size()));
        let summary = self.encode_windows_among(peers, kind, texts, progress, &mut |windows| {
            values.extend_from_slice(windows.values());
            Ok(())
        })?;
        Ok((Embeddings::new(dim, values), summary))
    }

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
        let windows: Vec<Range<usize>> = windows(0..texts.len()).collect();
        self.encode_these_among(peers, kind, texts, &windows, progress, sink)
    }

    /// [`Retriever::encode_windows_among`] of texts that are divided into these windows.
    pub(crate) fn encode_these_among(
        &self,
        peers: &Peers,
        kind: &TextKind,
        texts: &[&str],
        windows: &[Range<usize>],
        progress: &mut (dyn FnMut(usize) + Send),
        sink: &mut (dyn FnMut(Embeddings) -> Result<()> + Send),
    ) -> Result<Summary> {
        if peers.size() == 1 {
            return self.encode_these(kind, texts, windows, progress, sink);
        }
        let (mut n_cut, mut n_done, mut collapse) = (0, 0, Collapse::default());
        for windows in windows.chunks(WINDOWS_AT_ONCE * peers.size()) {
            let (embeddings, n_cut_here) =
                self.gather_these(peers, kind, texts, windows, &mut |n| progress(n_done + n))?;
            collapse.look(texts[n_done..].iter().copied(), &embeddings);
            n_cut += n_cut_here;
            n_done += embeddings.n_rows();
            sink(embeddings)?;
        }
        let n_texts = texts.len() as u64;
        Ok(Summary { n_texts, n_cut, is_collapsed: collapse.is_found() && n_texts - n_cut >= 2 })
    }

    /// The embeddings of the texts in some windows, which follow one another, and how many of the texts were cut.
    fn gather_these(
        &self,
        peers: &Peers,
        kind: &TextKind,
        texts: &[&str],
        windows: &[Range<usize>],
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<(Embeddings, u64)> {
        let (dim, size) = (self.embedding_size(), peers.size());
        let [first, end] =
            [windows.first().map_or(0, |window| window.start), windows.last().map_or(0, |window| window.end)];
        let n = end - first;
        require_same_texts(peers, hash_of(kind, &texts[first..end]))?;
        let of_rank = |rank: usize| windows.iter().skip(rank).step_by(size).cloned();
        let mut own = Vec::new();
        let summary = self.encode_these(
            kind,
            texts,
            &of_rank(peers.rank()).collect::<Vec<_>>(),
            &mut |done| {
                peers.progress().advance();
                progress((done * size).min(n));
            },
            &mut |window| {
                own.extend_from_slice(window.values());
                Ok(())
            },
        )?;
        let lens: Vec<usize> =
            (0..size).map(|rank| dim * of_rank(rank).map(|window| window.len()).sum::<usize>()).collect();
        let mut gathered = vec![0.0; n * dim];
        peers.all_gather(&own, &lens, &mut gathered)?;
        let mut values = vec![0.0; n * dim];
        let mut rest = &gathered[..];
        for window in (0..size).flat_map(of_rank) {
            let of_window = rest.split_off(..window.len() * dim).unwrap_or_default();
            values[(window.start - first) * dim..(window.end - first) * dim].copy_from_slice(of_window);
        }
        let cut = peers.all_gather_bytes(&summary.n_cut.to_le_bytes())?;
        let n_cut = cut.iter().map(|bytes| bytes[..].try_into().map_or(0, u64::from_le_bytes)).sum();
        Ok((Embeddings::new(dim, values), n_cut))
    }
}

/// Identifies texts with what stands before them and where they are cut.
fn hash_of(kind: &TextKind, texts: &[&str]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&(kind.max_len as u64).to_le_bytes());
    for text in [kind.prefix.as_str()].iter().chain(texts) {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.digest128()
}

/// Fails unless all processes have the same texts, of which `hash` is: what they would gather would be of others.
///
/// # Errors
/// The first process that has others than the first, and one that is gone.
pub(crate) fn require_same_texts(peers: &Peers, hash: u128) -> Result<()> {
    if peers.size() == 1 {
        return Ok(());
    }
    let of_ranks = peers.all_gather_bytes(&hash.to_le_bytes())?;
    match of_ranks.iter().position(|of_rank| *of_rank != of_ranks[0]) {
        None => Ok(()),
        Some(rank) => Err(Error::other(format!(
            "rank {rank} has other texts than rank 0; give all ranks the same data, on a disk that all see or in copies"
        ))),
    }
}
