//! A step that several ranks share, on threads of this process: the loss, the embeddings and every gradient are those of one
//! process, and the same bits on all ranks.

use super::{Step, TestBatch, Tiny};
use crate::dist::threads;
use hbt::backend::{Backend, Distillation, HostPairing, PackedBatch, Pooling};
use hbt::data::batch::Batch;
use hbt::data::sampler::BatchKind;
use hbt::dist::Peers;
use hbt::loss::{InfoNce, LossConfig};
use hbt::model::{Gradients, Keep, Packer, Sequences};
use hbt::train::{GradCache, Ranks, Share};
use std::sync::Arc;

impl TestBatch {
    /// The same for what deals it out, which looks at the tokens alone.
    fn whole(&self) -> Batch {
        Batch {
            step: 1,
            kind: BatchKind::MixedMonolingual,
            dataset: None,
            n_queries: self.n_queries,
            n_passages: self.places.len() - self.n_queries,
            ids: self.host.ids.clone(),
            cu_seqlens: self.host.cu_seqlens.clone(),
            places: self.places.clone(),
            labels: Vec::new(),
            left_out: Vec::new(),
            rejected: Vec::new(),
            own_negatives: Vec::new(),
            teacher_scores: Vec::new(),
            query_langs: Vec::new(),
            passage_langs: Vec::new(),
        }
    }
}

impl Tiny {
    /// The step as one of `ranks` takes it, whose chunks have at most `chunk_tokens` tokens.
    pub fn step_among<B: Backend>(&self, backend: &B, batch: &TestBatch, chunk_tokens: usize, ranks: &Ranks) -> Step {
        self.spoiled_step_among(backend, batch, chunk_tokens, ranks, &|_, _| ())
    }

    /// [`Tiny::step_among`] by a rank that takes its share and the labels of all for what `spoil` makes of them.
    pub fn spoiled_step_among<B: Backend>(
        &self,
        backend: &B,
        batch: &TestBatch,
        chunk_tokens: usize,
        ranks: &Ranks,
        spoil: &dyn Fn(&mut Share, &mut [i32]),
    ) -> Step {
        let encoder = self.encoder(backend);
        let mut cache = GradCache::new(backend, &encoder, 1).unwrap().among(ranks.clone());
        let mut loss = InfoNce::new(backend, encoder.embedding_size(), self.loss.clone()).unwrap();
        let mut grads = Gradients::new(backend, &encoder.weights).unwrap();
        let mut share = Share::default();
        share.take(ranks.deal(), &batch.whole());
        let right_places = share.places.clone();
        let mut labels = batch.labels.clone();
        spoil(&mut share, &mut labels);
        let mut packed = PackedBatch::new(backend).unwrap();
        let mut packer = Packer::new(&encoder.config, chunk_tokens, Keep::Everything);
        let Share { ids, cu_seqlens, first_rows, places } = &share;
        let pairing = HostPairing { places, labels: &labels, ..batch.pairing() };
        let sequences = Sequences { ids, cu_seqlens, first_rows };
        packed.upload(backend, packer.pack_share(&batch.host.ids, sequences, &pairing).unwrap()).unwrap();
        let mut step = self.step_on(backend, (&packed, batch.n_queries), &encoder, &mut cache, &mut loss, &mut grads);
        // In the order of the tokens, as one process has them.
        let dim = encoder.embedding_size();
        let gathered = std::mem::take(&mut step.embeddings);
        step.embeddings.resize(gathered.len(), 0.0);
        for (&place, &row) in batch.places.iter().zip(&right_places) {
            let (place, row) = (place as usize * dim, row as usize * dim);
            step.embeddings[place..place + dim].copy_from_slice(&gathered[row..row + dim]);
        }
        step
    }

    fn assert_ranks_agree<B: Backend>(&self, backend: &B, what: &str, batch: &TestBatch, sizes: &[usize]) {
        let alone = self.step(backend, batch, 16, 1);
        for &size in sizes {
            let step = |peers: Peers| self.step_among(backend, batch, 9, &Ranks::new(Arc::new(peers)));
            let of_ranks = threads::world(size, step);
            assert!(of_ranks.iter().all(|step| *step == of_ranks[0]), "{what}: ranks differ");
            self.assert_same_step::<B::E>(&format!("{what}, {size} ranks"), &of_ranks[0], &alone);
        }
    }
}

/// Every kind of loss, with dropout: hard negatives, answers that are left out, both directions, both sides, a teacher,
/// margins, several numbers of dimensions.
pub fn every_loss<B: Backend>() -> Vec<(&'static str, Tiny)> {
    let tiny = || Tiny::new::<B>("xlm-roberta", Pooling::Mean, true, 2).with_dropout();
    let with = |change: &dyn Fn(LossConfig) -> LossConfig| {
        let tiny = tiny();
        Tiny { loss: change(tiny.loss.clone()), ..tiny }
    };
    vec![
        ("plain", tiny()),
        ("symmetric", tiny().symmetric()),
        ("several dimensions", tiny().symmetric().matryoshka()),
        ("both sides", with(&|loss| LossConfig { query_negatives: true, passage_negatives: true, ..loss })),
        (
            "queries among negatives, symmetric",
            with(&|loss| LossConfig { query_negatives: true, symmetric: true, ..loss }),
        ),
        ("hard negatives alone", with(&|loss| LossConfig { in_batch_negatives: false, ..loss })),
        ("margins", with(&|loss| LossConfig { margin: 0.1, false_negative_margin: Some(0.05), ..loss })),
        ("a teacher's margins", tiny().taught(Distillation::MarginMse)),
        ("a teacher's distribution", tiny().symmetric().taught(Distillation::Kl)),
    ]
}

pub fn a_step_of_several_ranks_equals_that_of_one<B: Backend>(backend: &B) {
    let planted = TestBatch::planted();
    for (what, tiny) in every_loss::<B>() {
        tiny.assert_ranks_agree(backend, what, &planted, &[2, 3]);
    }
    let cls = Tiny::new::<B>("bert", Pooling::Cls, false, 1);
    cls.assert_ranks_agree(backend, "without dropout", &TestBatch::without_negatives(), &[2, 4]);
}

/// Fewer sequences than ranks.
pub fn a_rank_may_have_nothing<B: Backend>(backend: &B) {
    let tiny = Tiny::new::<B>("bert", Pooling::Mean, false, 2).with_dropout();
    tiny.assert_ranks_agree(backend, "few sequences", &TestBatch::new(&[4, 6, 3, 5], 2), &[3, 5, 7]);
}
