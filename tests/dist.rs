//! Processes that work as one: what they gather, add up and broadcast, on threads of one process and on real MPI.

#[cfg(unix)]
mod launch;
pub mod mpi;
#[cfg(unix)]
pub mod processes;
pub mod threads;
#[cfg(unix)]
mod watch;

use hbt::dist::Peers;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Number `i` of a rank: of both signs and many sizes, so that sums round.
fn value(rank: usize, i: usize) -> f32 {
    let mut hasher = DefaultHasher::new();
    (rank, i).hash(&mut hasher);
    let bits = hasher.finish();
    let unit = (bits >> 40) as f32 / (1 << 24) as f32 - 0.5;
    unit * 2.0_f32.powi((bits % 20) as i32 - 10)
}

fn values(rank: usize, n: usize) -> Vec<f32> {
    (0..n).map(|i| value(rank, i)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Asserts that `got` is the sum of `terms`, as near as so many additions in f32 come.
fn assert_sum(got: f32, terms: impl Iterator<Item = f64> + Clone) {
    let (sum, of_sizes) = (terms.clone().sum::<f64>(), terms.clone().map(f64::abs).sum::<f64>());
    let most = of_sizes * f64::from(f32::EPSILON / 2.0) * terms.count() as f64;
    assert!((f64::from(got) - sum).abs() <= most, "{got} for {sum}");
}

/// Lengths of each rank's part: equal, unequal, with empty ones, all at the last rank, none at all.
fn part_lens(size: usize) -> [Vec<usize>; 6] {
    let lens = |f: fn(usize, usize) -> usize| (0..size).map(|rank| f(rank, size)).collect();
    [
        lens(|_, _| 1000),
        lens(|rank, _| 3000 + 37 * rank),
        lens(|rank, _| 777 * rank),
        lens(|rank, size| if rank + 1 == size { 10_007 } else { 0 }),
        lens(|_, _| 0),
        lens(|rank, _| 1 + rank),
    ]
}

/// Makes every exchange and compares with what this rank computes by itself, in f64. Returns a hash of all that came, which
/// all ranks have.
fn exercise(peers: &Peers) -> u64 {
    let (rank, size) = (peers.rank(), peers.size());
    let mut hasher = DefaultHasher::new();
    for lens in part_lens(size) {
        let total: usize = lens.iter().sum();
        let start: usize = lens[..rank].iter().sum();
        let mut all = vec![f32::NAN; total];
        peers.all_gather(&values(rank, lens[rank]), &lens, &mut all).unwrap();
        let expected: Vec<f32> = (0..size).flat_map(|of| values(of, lens[of])).collect();
        assert_eq!(bits(&all), bits(&expected));

        let mut mine = vec![f32::NAN; lens[rank]];
        peers.reduce_scatter(&values(rank, total), &lens, &mut mine).unwrap();
        for (i, &got) in (start..).zip(&mine) {
            assert_sum(got, (0..size).map(|of| f64::from(value(of, i))));
        }
        peers.all_gather(&mine, &lens, &mut all).unwrap();
        bits(&all).hash(&mut hasher);

        let mut buffers = [total, 3, 0, 1, 384, 384 * 7, total / 2, 5].map(|len| values(rank, len));
        peers.all_reduce(&mut buffers.each_mut().map(|buffer| &mut buffer[..])).unwrap();
        for buffer in buffers {
            bits(&buffer).hash(&mut hasher);
            for (i, got) in buffer.into_iter().enumerate() {
                assert_sum(got, (0..size).map(|of| f64::from(value(of, i))));
            }
        }
        exercise_messages(peers, total);
    }
    let hash = hasher.finish();
    let hashes = peers.all_gather_bytes(&hash.to_le_bytes()).unwrap();
    assert_eq!(hashes, vec![hash.to_le_bytes(); size], "all ranks have the same sums");
    hash
}

fn exercise_messages(peers: &Peers, n: usize) {
    let (rank, size) = (peers.rank(), peers.size());
    for root in 0..size {
        let mut numbers = values(rank, n);
        peers.broadcast(root, &mut numbers).unwrap();
        assert_eq!(bits(&numbers), bits(&values(root, n)));
        let mut message = vec![rank as u8; 100 * rank];
        peers.broadcast_bytes(root, &mut message).unwrap();
        assert_eq!(message, vec![root as u8; 100 * root]);
    }
    let message = |rank: usize| vec![rank as u8; 1 + n * (rank % 2)];
    let expected: Vec<_> = (0..size).map(message).collect();
    assert_eq!(peers.all_gather_bytes(&message(rank)).unwrap(), expected);
    assert_eq!(peers.all_gather_bytes(&[]).unwrap(), vec![Vec::<u8>::new(); size]);
    peers.barrier().unwrap();
}

/// Sizes of rounds in bytes: fewer than a number for each rank, a few numbers, everything at once.
const ROUNDS: [usize; 3] = [1, 4000, 1 << 30];

#[test]
fn every_exchange_gives_what_a_loop_gives_whatever_fits_in_a_round() {
    for size in 1..=5 {
        let hashes = ROUNDS.map(|bytes| {
            // Rounds of one number each are many.
            let bytes = bytes.max(64);
            threads::world(size, move |peers| exercise(&peers.with_rounds_of(bytes)))
        });
        assert!(hashes.iter().flatten().all(|hash| *hash == hashes[0][0]), "{size} ranks: {hashes:x?}");
    }
}

#[test]
fn a_round_may_be_smaller_than_the_world() {
    let sums = threads::world(3, |peers| {
        let peers = peers.with_rounds_of(1);
        let mut sums = values(peers.rank(), 10);
        peers.all_reduce(&mut [&mut sums]).unwrap();
        bits(&sums)
    });
    let expected: Vec<f32> = (0..10).map(|i| value(0, i) + value(1, i) + value(2, i)).collect();
    assert_eq!(sums, vec![bits(&expected); 3], "ranks are added up in their order");
}

#[test]
fn a_world_of_one_needs_nothing() {
    let peers = Peers::alone();
    exercise(&peers);
    peers.finish().unwrap();
}
