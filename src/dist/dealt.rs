//! Work in numbered pieces, of which each rank does every so many.

use super::Peers;
use super::relay::confused;
use crate::Result;
use bytemuck::Pod;

const U64: usize = size_of::<u64>();

impl Peers {
    /// What comes of `n` pieces of work, on all ranks: each calls `f` with its own pieces, rank `r` with `r`, `r + size`, ....
    /// All ranks have as many pieces.
    ///
    /// # Errors
    /// Those of `f`, and if a rank is gone and MPI notices.
    pub fn dealt<T: Pod>(&self, n: usize, mut f: impl FnMut(usize) -> Result<Vec<T>>) -> Result<Vec<Vec<T>>> {
        let (rank, size) = (self.rank(), self.size());
        if size == 1 {
            return (0..n).map(f).collect();
        }
        let mut own = Vec::new();
        for piece in (rank..n).step_by(size) {
            let made = f(piece)?;
            self.progress().advance();
            own.extend((size_of_val(&made[..]) as u64).to_le_bytes());
            own.extend_from_slice(bytemuck::cast_slice(&made));
        }
        let of_ranks = self.all_gather_bytes(&own)?;
        let mut rest: Vec<&[u8]> = of_ranks.iter().map(Vec::as_slice).collect();
        let pieces: Option<Vec<_>> = (0..n).map(|piece| next(&mut rest[piece % size])).collect();
        pieces.filter(|_| rest.iter().all(|rest| rest.is_empty())).ok_or_else(confused)
    }
}

/// Takes the next piece off what a rank has sent.
fn next<T: Pod>(rest: &mut &[u8]) -> Option<Vec<T>> {
    let len = u64::from_le_bytes(rest.split_off(..U64)?.try_into().ok()?);
    Some(bytemuck::pod_collect_to_vec(rest.split_off(..usize::try_from(len).ok()?)?))
}
