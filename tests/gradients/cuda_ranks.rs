//! A step that GPUs share over NCCL, each in a process of its own: on the stand-in, or on a real GPU, where two ranks have one.

use super::{TestBatch, Tiny, ranks::every_loss};
use crate::device::{StandIn, built, is_real};
use crate::dist::processes;
use hbt::backend::cuda::require_nccl;
use hbt::backend::{Cuda, Pooling};
use hbt::train::Ranks;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Number of ranks that share all kinds of loss; others share some of them.
const ALL: usize = 2;

#[test]
#[ignore = "one process of several, which the other test starts"]
fn rank() {
    if std::env::var_os("HBT_RENDEZVOUS").is_none() {
        return;
    }
    StandIn::get();
    let (peers, watch) = processes::meet();
    let peers = Arc::new(peers);
    let (rank, size, ranks) = (peers.rank(), peers.size(), Ranks::new(peers.clone()));
    let gpu = || Cuda::<f32>::with_separate_memory(if is_real() { 0 } else { rank }).unwrap();
    let (backend, alone) = (gpu(), gpu());
    ranks.connect(&backend).unwrap();
    let mut steps: Vec<(String, Tiny, TestBatch)> = every_loss::<Cuda<f32>>()
        .into_iter()
        .filter(|(what, _)| size == ALL || what.contains("symmetric") || what.contains("dimensions"))
        .map(|(what, tiny)| (what.to_owned(), tiny, TestBatch::planted()))
        .collect();
    // As many on all ranks, and fewer than ranks.
    for lens in [&[4, 6, 3, 5][..], &[4, 6, 3]] {
        let tiny = Tiny::new::<Cuda<f32>>("bert", Pooling::Mean, false, 2).with_dropout();
        steps.push((format!("{} sequences", lens.len()), tiny, TestBatch::new(lens, lens.len() / 2)));
    }
    for (what, tiny, batch) in &steps {
        let step = tiny.step_among(&backend, batch, 9, &ranks);
        let mut hasher = DefaultHasher::new();
        let numbers = || step.gradients.iter().flatten().chain(&step.embeddings).chain([&step.loss]);
        numbers().for_each(|x| x.to_bits().hash(&mut hasher));
        let hashes = peers.all_gather_bytes(&hasher.finish().to_le_bytes()).unwrap();
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{what}: {size} ranks differ");
        if rank == 0 {
            tiny.assert_same_step::<f32>(&format!("{what}, {size} ranks"), &step, &tiny.step(&alone, batch, 16, 1));
        }
    }
    ranks.disconnect(&backend).unwrap();
    watch.finish();
    println!("DONE {}", steps.len());
}

/// Every gradient of two, three and four GPUs is that of one, with dropout, in every order of threads, streams and sums.
#[test]
fn gradients_of_several_gpus_are_those_of_one() {
    if is_real() && require_nccl().is_err() {
        return eprintln!("skipped: there is no NCCL");
    }
    let library = built().join("libnccl.so.2");
    for (size, seed) in [(2, "1"), (3, "2"), (4, "3")] {
        if is_real() && size > 2 {
            continue;
        }
        let stand_in = [("HBT_NCCL_LIBRARY", library.to_str().unwrap()), ("SIMT_DEVICES", "4"), ("SIMT_SEED", seed)];
        let real = [("NCCL_MULTI_RANK_GPU_ENABLE", "1")];
        let variables = if is_real() { &real[..] } else { &stand_in[..] };
        let outputs =
            processes::run("gradients::cuda_ranks::rank", size, variables, |_| vec![("NCCL_ALGO", "Ring".to_owned())]);
        for output in outputs {
            let said =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success() && said.contains("DONE "), "{size} ranks: {said}");
        }
    }
}
