//! A whole step against central differences of the f64 reference.

use super::{TEMPERATURE, TestBatch, Tiny};
use crate::ops::support::assert_close;
use crate::reference::difference::assert_along_directions;
use crate::reference::distillation::Teacher;
use crate::reference::encoder::embed;
use crate::reference::info_nce::Loss;
use crate::tolerance;
use hbt::backend::{Backend, Distillation, Pooling};

/// Loss, embeddings and every parameter's gradient against the reference.
fn check_step<B: Backend>(backend: &B, tiny: &Tiny, batch: &TestBatch) {
    let step = tiny.step(backend, batch, usize::MAX, 1);
    let (ids, cu_seqlens) = (&batch.host.ids, &batch.host.cu_seqlens);
    let masks = tiny.masks(&batch.host);
    let embeddings = embed(&tiny.model, ids, cu_seqlens, &masks);
    let d = embeddings.len() / batch.host.n_seqs();
    let temperature = f64::from(TEMPERATURE);
    let n_seqs = batch.host.n_seqs();
    let loss = Loss {
        labels: batch.labels.clone(),
        rejected: batch.rejected.clone(),
        left_out: batch.pairs.clone(),
        dimensions: match &tiny.loss.dimensions[..] {
            [] => vec![(d, 1.0)],
            some => some.iter().map(|&(d, weight)| (d, f64::from(weight))).collect(),
        },
        weight: f64::from(tiny.loss.weight),
        teacher: tiny.loss.distillation.map(|of| {
            let pairing = batch.pairing();
            let own = pairing.own_negatives.chunks(2).map(|ends| ends[0] as usize..ends[1] as usize);
            let teacher = Teacher {
                kind: of.kind,
                own: own.collect(),
                scores: pairing.teacher_scores.iter().map(|&score| f64::from(score)).collect(),
                inv_temperature: 1.0 / f64::from(of.temperature.unwrap_or(TEMPERATURE)),
                inv_teacher_temperature: 1.0 / f64::from(of.teacher_temperature),
            };
            (teacher, f64::from(of.weight))
        }),
        ..Loss::plain(d, batch.n_queries, n_seqs, temperature, tiny.loss.symmetric)
    };
    let loss_of = |embeddings: &[f64]| {
        let of_seq = |&place: &i32| embeddings[place as usize * d..][..d].to_vec();
        loss.of(&batch.places.iter().flat_map(of_seq).collect::<Vec<_>>())
    };
    assert_close("embeddings", &step.embeddings, &embeddings, tolerance::EMBEDDINGS);
    assert_close("loss", &[step.loss], &[loss_of(&embeddings)], tolerance::LOSS);
    for (index, (spec, got)) in tiny.specs.iter().zip(&step.gradients).enumerate() {
        let loss_with = |values: &[f64]| {
            let mut model = tiny.model.clone();
            model.params.iter_mut().nth(index).unwrap().copy_from_slice(values);
            vec![loss_of(&embed(&model, ids, cu_seqlens, &masks))]
        };
        let x = tiny.model.params.iter().nth(index).unwrap();
        assert_along_directions::<f32>(&spec.name, loss_with, x, &[1.0], got, tolerance::ENCODER_GRADIENT);
    }
}

pub fn bert_with_mean_pooling<B: Backend>(backend: &B) {
    let tiny = Tiny::new::<B>("bert", Pooling::Mean, false, 2);
    check_step(backend, &tiny, &TestBatch::without_negatives());
    check_step(backend, &tiny.with_dropout(), &TestBatch::with_negatives());
}

pub fn bert_with_cls_pooling_and_a_dense_layer<B: Backend>(backend: &B) {
    let tiny = Tiny::new::<B>("bert", Pooling::Cls, true, 2);
    check_step(backend, &tiny, &TestBatch::planted());
    check_step(backend, &tiny.with_dropout().symmetric(), &TestBatch::without_negatives());
}

pub fn xlm_roberta_with_mean_pooling_and_a_dense_layer<B: Backend>(backend: &B) {
    let tiny = Tiny::new::<B>("xlm-roberta", Pooling::Mean, true, 1);
    check_step(backend, &tiny.with_dropout().symmetric().matryoshka(), &TestBatch::planted());
}

pub fn a_step_with_a_teacher<B: Backend>(backend: &B) {
    for kind in Distillation::ALL {
        let tiny = Tiny::new::<B>("bert", Pooling::Cls, true, 1).with_dropout().symmetric().taught(*kind);
        check_step(backend, &tiny, &TestBatch::planted());
    }
}

pub fn xlm_roberta_with_cls_pooling<B: Backend>(backend: &B) {
    let tiny = Tiny::new::<B>("xlm-roberta", Pooling::Cls, false, 3).symmetric();
    check_step(backend, &tiny, &TestBatch::with_negatives());
    let tiny = tiny.with_norms_of_their_own();
    check_step(backend, &tiny.with_dropout(), &TestBatch::without_negatives());
}
