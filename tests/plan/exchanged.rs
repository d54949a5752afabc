//! What a plan counts that ranks exchange: against a table that was reckoned by hand, and against what they really send.

use super::{Setting, config, machine};
use crate::common::Sandbox;
use crate::dist::threads;
use hbt::backend::{Cpu, Device, PackedBatch, Tally};
use hbt::data::bounds::BatchBounds;
use hbt::model::{Keep, Packer};
use hbt::model_dir::ModelDir;
use hbt::plan::{Batches, Cluster, Exchanged, Held, Machine, Plan, Question, Rehearsal, Target};
use hbt::train::{Deal, Packing, Ranks, StepBounds};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Sizes that what is exchanged does not depend on.
const MOST: BatchBounds =
    BatchBounds { n_queries: 20, n_seqs: 40, n_tokens: 900, shortest: 3, longest: 24, shares_texts: false };

/// A directory with XLM-R-large's sizes, and without its weights.
fn xlmr_large(sandbox: &Sandbox) -> ModelDir {
    sandbox.copy_model("xlmr", "large");
    let mut json = sandbox.json("large/config.json");
    for (key, value) in [
        ("hidden_size", 1024),
        ("intermediate_size", 4096),
        ("num_hidden_layers", 24),
        ("num_attention_heads", 16),
        ("vocab_size", 250_002),
        ("max_position_embeddings", 514),
    ] {
        json[key] = value.into();
    }
    sandbox.write("large/config.json", json.to_string());
    let mut pooling = sandbox.json("large/1_Pooling/config.json");
    pooling["word_embedding_dimension"] = 1024.into();
    sandbox.write("large/1_Pooling/config.json", pooling.to_string());
    ModelDir::open(sandbox.path("large")).unwrap()
}

fn assert_near(got: f64, expected: f64, what: &str) {
    assert!((got / expected - 1.0).abs() < 0.05, "{what}: {got}, and {expected} by hand");
}

/// Batches of 8,192 and of 65,536 pairs of 160 tokens, with as many different tokens as were counted in 1.28 million (64,484) and
/// reckoned for 10 million, on 8 GPUs that NVLink connects, and on 16 in two machines with one or eight ports. Bytes and
/// milliseconds as they were reckoned by hand, at 370, 46 and 330 GB/s; the time of embeddings, which goes there and back in the
/// table, one way, where it has more than one digit.
#[test]
fn bytes_and_times_are_those_of_a_table_made_by_hand() {
    let sandbox = Sandbox::new();
    let model = xlmr_large(&sandbox);
    let settings = config(&[]).training(&model).unwrap();
    let (small, large) = ((8192, 64_484, [67e6, 1.21e9, 266e6]), (65_536, 100_000, [537e6, 1.21e9, 410e6]));
    for ((n_queries, n_ids, sizes), n_ranks, bandwidth, times) in [
        (small, 8, 370e9, [None, Some(5.7), Some(1.3)]),
        (small, 16, 46e9, [Some(1.35), Some(49.4), Some(10.9)]),
        (small, 16, 330e9, [None, Some(6.9), Some(1.5)]),
        (large, 8, 370e9, [Some(1.25), Some(5.7), Some(1.9)]),
        (large, 16, 46e9, [Some(11.0), Some(49.4), Some(16.7)]),
    ] {
        let tally = Tally::<half::bf16>::of_gpu(80 << 30).among(n_ranks);
        let bounds = StepBounds::of_share(Deal { rank: 0, size: n_ranks }, &MOST, 256, model.config.vocab_size);
        let mut rehearsal = Rehearsal::new(tally, &settings, &model, &bounds).unwrap();
        let exchanged = rehearsal.exchange(2 * n_queries, n_ids).unwrap();
        for (((name, traffic), size), time) in exchanged.kinds().into_iter().zip(sizes).zip(times) {
            let what = format!("{n_queries} queries on {n_ranks} at {bandwidth}: {name}");
            assert_near(traffic.bytes, size, &what);
            if let Some(time) = time {
                assert_near(1e3 * traffic.received / bandwidth, time, &what);
            }
        }
    }
}

/// What the plan counts for a step is what ranks receive in it: all of them together to the byte.
#[test]
fn ranks_receive_what_a_plan_counts() {
    let setting = Setting::new();
    let model = &setting.model;
    let settings = setting.settings(&config(&["chunk_tokens=64"]));
    let mut batches = Batches::of_tokens(&settings, model.config.vocab_size, &setting.data).unwrap();
    batches.some.truncate(1);
    let batch = &batches.some[0].0;
    for (size, round) in [(2, 1 << 24), (3, 5000), (4, 1 << 24)] {
        let deal = Deal { rank: 0, size };
        let bounds = StepBounds::of_share(deal, &batches.bounds, 64, model.config.vocab_size);
        let mut rehearsal = Rehearsal::<f32>::new(Tally::new(1).among(size), &settings, model, &bounds).unwrap();
        let counted = rehearsal.mean_step(&batches).unwrap().exchanged;
        assert_eq!(counted, rehearsal.exchange(batch.n_seqs(), n_ids(&batch.ids)).unwrap(), "of a step, and by itself");
        let received = threads::world(size, |peers| {
            let ranks = Ranks::new(Arc::new(peers.with_rounds_of(round)));
            let cpu = Cpu::<f32>::new();
            let held = Held::new(&cpu, &settings, model, &bounds, ranks.clone());
            let Held { mut encoder, mut stepper, .. } = held.unwrap();
            let packer = Packer::new(&model.config, 64, Keep::Everything);
            let mut packing = Packing::new(packer, ranks.deal());
            let mut packed = PackedBatch::new(&cpu).unwrap();
            packed.upload(&cpu, packing.pack(batch).unwrap()).unwrap();
            let mut results = cpu.readback(stepper.n_results(batch.n_queries)).unwrap();
            stepper.step(&cpu, &mut encoder, &packed, None, 1e-3, &mut results).unwrap();
            ranks.peers().n_received()
        });
        assert_eq!(received.iter().sum::<u64>() as f64, (size as f64 * counted.received()).round(), "{size} ranks");
        for of_rank in received {
            // Parts of a sum differ by a number, and embeddings by a row.
            assert!((of_rank as f64 / counted.received() - 1.0).abs() < 0.01, "{of_rank} of {counted:?}");
        }
    }
}

fn n_ids(ids: &[i32]) -> usize {
    ids.iter().collect::<BTreeSet<_>>().len()
}

/// A rank of several holds less of a batch, and what it holds of the whole batch stays; so does the time of a step.
#[test]
fn a_rank_has_its_share() {
    let setting = Setting::new();
    let config = config(&["chunk_tokens=auto", "kept_chunks=auto", "batch_size=48"]);
    let h100 = Target::H100Gb80.machine(true).unwrap();
    let plan = |n, machine: &Machine| {
        let question = Question { cluster: Cluster::of(n), ..setting.question(&config, machine) };
        Plan::new(&question).unwrap()
    };
    let [one, four] = [1, 4].map(|n| plan(n, &h100));
    assert_eq!((one.exchanged, one.seconds()), (Exchanged::default(), one.time.map(|time| time.seconds)));
    let needs = |plan: &Plan, name: &str| plan.needs.items.iter().find(|item| item.name == name).unwrap().bytes;
    assert!(needs(&four, "activations") < needs(&one, "activations"));
    for whole in ["weights", "optimizer", "gradients", "loss"] {
        assert_eq!(needs(&four, whole), needs(&one, whole), "{whole}");
    }
    assert!(four.needs.items.iter().any(|item| item.name == "exchange"));
    assert_eq!(four.batches.mean_tokens, one.batches.mean_tokens);
    // A quarter of the encoder's work, and all of the loss and the update.
    let [flops_of_one, flops_of_four] = [&one, &four].map(|plan| plan.time.unwrap().flops);
    assert!((0.24..0.35).contains(&(flops_of_four / flops_of_one)), "{flops_of_four} of {flops_of_one}");
    let exchange = four.exchange_seconds.unwrap();
    assert_eq!(four.seconds().unwrap(), four.time.unwrap().seconds + exchange);
    assert_eq!(exchange, four.exchanged.received() / (0.8 * 450e9));
    // What the largest sampled batch is cut into, of which each has a quarter.
    let bounds = four.batches.own_bounds();
    assert!(bounds.n_tokens < one.batches.bounds.n_tokens / 2 && four.chunks[0] <= one.chunks[0]);
    assert!(four.settings.chunk_tokens <= bounds.n_tokens.next_multiple_of(256));
    // A network that is slower than the links within a machine, and one that is not.
    let cluster = |network| Cluster { devices: 8, nodes: 2, link: None, network: Some(network) };
    assert_eq!(cluster(50e9).bandwidth(&h100), Some(0.9 * 50e9));
    assert_eq!(cluster(500e9).bandwidth(&h100), Some(0.8 * 450e9));
    assert_eq!(Cluster { devices: 1, ..cluster(500e9) }.bandwidth(&h100), Some(0.9 * 500e9));
    assert_eq!(Cluster::of(2).bandwidth(&machine(true, None)), None);
}
