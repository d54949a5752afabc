//! All processes of a run: what each has is gathered, added up or sent to all.
//!
//! Every rank makes the same calls in the same order. A world of one moves nothing.
//!
//! # Sums
//!
//! The same world twice gives the same bytes, and all ranks get the same. Of `MPI_Allreduce` MPI requires the second, in which
//! libraries have failed (Open MPI's pull request 12258, UCC's 1145), and only recommends the first (MPI 4.1, sections 6.9.6
//! and 6.9.1); which algorithm sums, and so in which order, depends on the library and its settings. So no sum is left to
//! it. Each rank receives what all others have for its part, adds in f32 in the order of ranks, and, where all are to know,
//! sends the sum back to all: `MPI_Alltoallv` and `MPI_Allgatherv`. Each rank sends and receives `(W - 1) / W` of the
//! buffer in each of the two, which is what a ring does, and what is least. 131 MB between two processes on two busy cores
//! took 185 to 302 ms on MPICH 5.0.2 and 442 to 578 ms on Open MPI 5.0.11, where `MPI_Allreduce` took 149 to 193 and 267 to
//! 564 ms: a third to a half more, of what is a few hundredths of a step.
//!
//! # Rounds
//!
//! MPI counts in `int`, and what is received has to lie somewhere before it is added up. Buffers of more than
//! [`ROUND_BYTES`] therefore go in rounds, cut by their lengths alone.

use super::mpi::Mpi;
use super::wire::{MOST_BYTES, Wire};
use super::{Place, Progress};
use crate::Result;
use bytemuck::Pod;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that a rank sends or receives at once.
pub const ROUND_BYTES: usize = 16 << 20;

const F32: usize = size_of::<f32>();

/// All processes of a run.
pub struct Peers {
    place: Place,
    /// Each exchange counts when it begins: who is behind has begun fewer.
    progress: Arc<Progress>,
    /// `None` in a world of one. The lock is what MPI asks for: any thread may call, one at a time.
    world: Option<Mutex<World>>,
}

/// What carries bytes, and memory for a round of them.
struct World {
    wire: Box<dyn Wire>,
    rank: usize,
    size: usize,
    /// Most numbers, and a quarter of the bytes, of a round.
    round: usize,
    sent: Vec<f32>,
    received: Vec<f32>,
    sums: Vec<f32>,
    /// Bytes that have come from other ranks.
    n_received: u64,
}

impl Peers {
    /// A world of one.
    pub fn alone() -> Self {
        Peers { place: Place::ALONE, progress: Arc::default(), world: None }
    }

    /// The first of `size` processes of which the others are not there: with a device that only counts what they would
    /// exchange.
    pub fn imagined(size: usize) -> Self {
        Peers { place: Place { size, local_size: size, ..Place::ALONE }, progress: Arc::default(), world: None }
    }

    /// The processes that `place` is one of, over MPI if they are several. Returns when all have come.
    ///
    /// # Errors
    /// If there is no MPI, or not the launcher's.
    pub fn open(place: Place) -> Result<Self> {
        if place.size == 1 {
            Ok(Peers { place, progress: Arc::default(), world: None })
        } else {
            Ok(Peers::over(place, Box::new(Mpi::open(&place)?), Arc::default()))
        }
    }

    /// The processes that `place` is one of, over `wire`; exchanges are counted in `progress`.
    pub fn over(place: Place, wire: Box<dyn Wire>, progress: Arc<Progress>) -> Self {
        let Place { rank, size, .. } = place;
        let [sent, received, sums] = [const { Vec::new() }; 3];
        let world = World { wire, rank, size, round: ROUND_BYTES / F32, sent, received, sums, n_received: 0 };
        Peers { place, progress, world: Some(Mutex::new(world)) }
    }

    /// These, with rounds of at most `bytes` bytes.
    pub fn with_rounds_of(mut self, bytes: usize) -> Self {
        if let Some(world) = &mut self.world {
            let world = world.get_mut().unwrap_or_else(PoisonError::into_inner);
            // Each rank has to have a part of a round.
            world.round = (bytes.min(MOST_BYTES) / F32).max(world.size);
        }
        self
    }

    /// Number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.place.rank
    }

    /// Number of processes.
    pub fn size(&self) -> usize {
        self.place.size
    }

    /// Where this process is among the others.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// How far this process is.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Bytes that have come from other ranks so far.
    pub fn n_received(&self) -> u64 {
        let world = self.world.as_ref().map(|world| world.lock().unwrap_or_else(PoisonError::into_inner));
        world.map_or(0, |world| world.n_received)
    }

    /// The world, for an exchange, unless it has only this process.
    fn world(&self) -> Option<impl std::ops::DerefMut<Target = World>> {
        self.progress.advance();
        self.world.as_ref().map(|world| world.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gathers what each rank has, `lens[rank]` numbers of it, into `all`, end to end in the order of ranks.
    ///
    /// # Errors
    /// If a rank is gone and MPI notices.
    ///
    /// # Panics
    /// If the buffers have other lengths.
    pub fn all_gather(&self, mine: &[f32], lens: &[usize], all: &mut [f32]) -> Result<()> {
        self.check(lens, mine.len(), all.len());
        let Some(mut world) = self.world() else {
            all.copy_from_slice(mine);
            return Ok(());
        };
        let lens: Vec<usize> = lens.iter().map(|len| len * F32).collect();
        world.gather(bytemuck::cast_slice(mine), &lens, bytemuck::cast_slice_mut(all))
    }

    /// Adds up `parts` over all ranks, and writes to `mine` the part of this one. Every rank has all parts, those for rank
    /// `r` `lens[r]` numbers, end to end in the order of ranks.
    ///
    /// # Errors
    /// If a rank is gone and MPI notices.
    ///
    /// # Panics
    /// If the buffers have other lengths.
    pub fn reduce_scatter(&self, parts: &[f32], lens: &[usize], mine: &mut [f32]) -> Result<()> {
        self.check(lens, mine.len(), parts.len());
        let Some(mut world) = self.world() else {
            mine.copy_from_slice(parts);
            return Ok(());
        };
        world.reduce_scatter(parts, lens, mine)
    }

    /// Adds up each buffer over all ranks. All ranks have as many of the same lengths.
    ///
    /// # Errors
    /// If a rank is gone and MPI notices.
    pub fn all_reduce(&self, buffers: &mut [&mut [f32]]) -> Result<()> {
        self.world().map_or(Ok(()), |mut world| world.all_reduce(buffers))
    }

    /// Writes the numbers of rank `root` to those of all others. As many on all ranks.
    ///
    /// # Errors
    /// If a rank is gone and MPI notices.
    pub fn broadcast<T: Pod>(&self, root: usize, values: &mut [T]) -> Result<()> {
        self.world().map_or(Ok(()), |mut world| world.broadcast(root, bytemuck::cast_slice_mut(values)))
    }

    /// Writes the bytes of rank `root` to those of all others, whatever length they had.
    ///
    /// # Errors
    /// If a rank is gone and MPI notices.
    pub fn broadcast_bytes(&self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let Some(mut world) = self.world() else { return Ok(()) };
        let mut len = [bytes.len() as u64];
        world.broadcast(root, bytemuck::cast_slice_mut(&mut len))?;
        bytes.resize(len[0] as usize, 0);
        world.broadcast(root, bytes)
    }

    /// The bytes of each rank, in the order of ranks.
    ///
    /// # Errors
    /// If a rank is gone and MPI notices.
    pub fn all_gather_bytes(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let Some(mut world) = self.world() else { return Ok(vec![mine.to_vec()]) };
        let (size, len) = (world.size, [mine.len() as u64]);
        let mut lens = vec![0_u64; size];
        world.gather(bytemuck::cast_slice(&len), &vec![size_of::<u64>(); size], bytemuck::cast_slice_mut(&mut lens))?;
        let lens: Vec<usize> = lens.into_iter().map(|len| len as usize).collect();
        let mut all = vec![0; lens.iter().sum()];
        world.gather(mine, &lens, &mut all)?;
        let mut rest = &all[..];
        Ok(lens.iter().map(|&len| rest.split_off(..len).unwrap_or_default().to_vec()).collect())
    }

    /// Returns when all ranks have called it.
    ///
    /// # Errors
    /// If a rank is gone and MPI notices.
    pub fn barrier(&self) -> Result<()> {
        self.world().map_or(Ok(()), |mut world| world.wire.barrier())
    }

    /// Ends the exchange, when all ranks do. A process that ends without it takes the others along, or leaves them waiting.
    ///
    /// # Errors
    /// If a rank is gone and MPI notices.
    pub fn finish(mut self) -> Result<()> {
        let world = self.world.take().map(|world| world.into_inner().unwrap_or_else(PoisonError::into_inner));
        world.map_or(Ok(()), |world| world.wire.finish())
    }

    /// Ends this process, and all others with it. For a process that has an error to report, when it has reported it.
    pub fn abort(&self, status: i32) -> ! {
        match self.world() {
            Some(mut world) => world.wire.abort(status),
            None => std::process::exit(status),
        }
    }

    /// Asserts that there is a length for each rank, that this rank's is `mine`, and that they are `all` together.
    fn check(&self, lens: &[usize], mine: usize, all: usize) {
        assert_eq!(lens.len(), self.size(), "peers: a length for each rank");
        assert_eq!(lens[self.rank()], mine, "peers: the length of this rank's part");
        assert_eq!(lens.iter().sum::<usize>(), all, "peers: the length of all parts");
    }
}

/// The others would wait for a process that has panicked, and some launchers let them.
impl Drop for Peers {
    fn drop(&mut self) {
        if let Some(world) = self.world.as_mut().filter(|_| std::thread::panicking()) {
            // The status of a process that has panicked.
            world.get_mut().unwrap_or_else(PoisonError::into_inner).wire.abort(101);
        }
    }
}

/// The part that round `k` of `len` elements takes, if each takes `most`.
fn in_round(len: usize, most: usize, k: usize) -> Range<usize> {
    len.min(k * most)..len.min((k + 1) * most)
}

/// Where parts of these lengths begin if they are end to end.
fn starts(lens: &[usize]) -> impl Iterator<Item = usize> {
    lens.iter().scan(0, |end, len| Some(std::mem::replace(end, *end + len)))
}

/// The first `len` elements of a buffer that grows as needed.
fn first(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.resize(buffer.len().max(len), 0.0);
    &mut buffer[..len]
}

/// Adds up `n` numbers of each rank, which are end to end in the order of ranks.
fn sum_ranks(of_ranks: &[f32], sums: &mut [f32]) {
    let Some((of_first, of_others)) = of_ranks.split_at_checked(sums.len()).filter(|_| !sums.is_empty()) else {
        return;
    };
    sums.copy_from_slice(of_first);
    for of_rank in of_others.chunks_exact(sums.len()) {
        sums.iter_mut().zip(of_rank).for_each(|(sum, x)| *sum += x);
    }
}

impl World {
    /// See [`Peers::all_gather`]; of bytes.
    fn gather(&mut self, mine: &[u8], lens: &[usize], all: &mut [u8]) -> Result<()> {
        let round = self.round * F32;
        self.n_received += (all.len() - mine.len()) as u64;
        if all.len() <= round {
            return if all.is_empty() { Ok(()) } else { self.wire.all_gather(mine, all, lens) };
        }
        let most = round / self.size;
        let longest = lens.iter().copied().max().unwrap_or(0);
        for k in 0..longest.div_ceil(most) {
            let ranges = || lens.iter().map(|&len| in_round(len, most, k));
            let of_round: Vec<usize> = ranges().map(|range| range.len()).collect();
            let n: usize = of_round.iter().sum();
            let received = &mut bytemuck::cast_slice_mut(first(&mut self.received, n.div_ceil(F32)))[..n];
            self.wire.all_gather(&mine[in_round(mine.len(), most, k)], received, &of_round)?;
            let mut rest = &received[..];
            for (start, range) in starts(lens).zip(ranges()) {
                let part = rest.split_off(..range.len()).unwrap_or_default();
                all[start + range.start..start + range.end].copy_from_slice(part);
            }
        }
        Ok(())
    }

    /// See [`Peers::reduce_scatter`].
    fn reduce_scatter(&mut self, parts: &[f32], lens: &[usize], mine: &mut [f32]) -> Result<()> {
        let most = self.round / self.size;
        let longest = lens.iter().copied().max().unwrap_or(0);
        for k in 0..longest.div_ceil(most) {
            let ranges = || lens.iter().map(|&len| in_round(len, most, k));
            let of_round: Vec<usize> = ranges().map(|range| range.len()).collect();
            let mut sent = first(&mut self.sent, of_round.iter().sum());
            for (start, range) in starts(lens).zip(ranges()) {
                let of_rank = sent.split_off_mut(..range.len()).unwrap_or_default();
                of_rank.copy_from_slice(&parts[start + range.start..start + range.end]);
            }
            let sums = &mut mine[in_round(lens[self.rank], most, k)];
            let sent = &self.sent[..of_round.iter().sum()];
            self.n_received += (size_of_val(sums) * (self.size - 1)) as u64;
            sum_over_ranks(&mut *self.wire, sent, &of_round, &mut self.received, sums)?;
        }
        Ok(())
    }

    /// See [`Peers::all_reduce`]: long buffers in rounds, short ones several together, as each round takes the time of two
    /// messages to all ranks.
    fn all_reduce(&mut self, buffers: &mut [&mut [f32]]) -> Result<()> {
        let round = self.round;
        let mut packed = Vec::new();
        let mut rest = buffers;
        while !rest.is_empty() {
            // As many of the next as fit in a round together.
            let ends = rest.iter().scan(0, |end, buffer| {
                *end += buffer.len();
                Some(*end)
            });
            let n = ends.take_while(|&end| end <= round).count();
            let (group, others) = rest.split_at_mut(n.max(1));
            rest = others;
            if let [buffer] = group {
                buffer.chunks_mut(round).try_for_each(|chunk| self.sum_everywhere(chunk))?;
                continue;
            }
            packed.clear();
            group.iter().for_each(|buffer| packed.extend_from_slice(buffer));
            self.sum_everywhere(&mut packed)?;
            let mut sums = &packed[..];
            for buffer in group {
                buffer.copy_from_slice(sums.split_off(..buffer.len()).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Adds up a round's numbers over all ranks: each rank its part of them, and then all gather the sums.
    fn sum_everywhere(&mut self, values: &mut [f32]) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let (n, size) = (values.len(), self.size);
        let lens: Vec<usize> = (0..size).map(|rank| n * (rank + 1) / size - n * rank / size).collect();
        let sums = first(&mut self.sums, lens[self.rank]);
        self.n_received += (size_of_val(sums) * (size - 1) + size_of_val(values) - size_of_val(sums)) as u64;
        sum_over_ranks(&mut *self.wire, values, &lens, &mut self.received, sums)?;
        let lens: Vec<usize> = lens.iter().map(|len| len * F32).collect();
        self.wire.all_gather(bytemuck::cast_slice(sums), bytemuck::cast_slice_mut(values), &lens)
    }

    fn broadcast(&mut self, root: usize, bytes: &mut [u8]) -> Result<()> {
        self.n_received += if self.rank == root { 0 } else { bytes.len() as u64 };
        bytes.chunks_mut(self.round * F32).try_for_each(|part| self.wire.broadcast(root, part))
    }
}

/// Sends each rank its part of `parts`, and adds up what all ranks have for this one.
fn sum_over_ranks(
    wire: &mut dyn Wire,
    parts: &[f32],
    lens: &[usize],
    received: &mut Vec<f32>,
    sums: &mut [f32],
) -> Result<()> {
    let received = first(received, sums.len() * lens.len());
    let sent_lens: Vec<usize> = lens.iter().map(|len| len * F32).collect();
    let received_lens = vec![size_of_val(sums); lens.len()];
    wire.all_to_all(bytemuck::cast_slice(parts), &sent_lens, bytemuck::cast_slice_mut(received), &received_lens)?;
    sum_ranks(received, sums);
    Ok(())
}
