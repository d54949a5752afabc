//! AdamW in one pass over every parameter, and the sums of squares for gradient clipping.

use super::kernels::adamw::{MOST_PARAMETERS, UPDATE_THREADS, UPDATED};
use super::launch::launch;
use super::pointers::{Out, Pass};
use super::tensor_list::{TensorBlocks, TensorList};
use super::{Cuda, CudaElement, Tensor};
use crate::Result;
use crate::backend::{AdamW, AdamWParameter, AdamWStep};
use half::bf16;

/// `AdamWList` of kernels/adamw.cu.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
pub(super) struct AdamWList {
    pub w: [u64; MOST_PARAMETERS],
    pub copy: [u64; MOST_PARAMETERS],
    pub m: [u64; MOST_PARAMETERS],
    pub v: [u64; MOST_PARAMETERS],
    pub grad: [u64; MOST_PARAMETERS],
    pub keep: [f32; MOST_PARAMETERS],
    pub blocks: TensorBlocks<MOST_PARAMETERS>,
}

impl AdamWList {
    fn new<E: CudaElement>(parameters: &mut [AdamWParameter<Cuda<E>>], step: &AdamWStep) -> Self {
        let lens = parameters.iter().map(|parameter| parameter.weight.len());
        let blocks = TensorBlocks::new(lens, UPDATED * UPDATE_THREADS);
        let mut list = AdamWList { blocks, ..bytemuck::Zeroable::zeroed() };
        for (i, parameter) in parameters.iter_mut().enumerate() {
            let (w, copy) = weights(parameter.weight, parameter.master.as_deref_mut());
            (list.w[i], list.copy[i]) = (w.address(), copy.map_or(0, |copy| copy.address()));
            list.m[i] = parameter.m.buffer().address();
            list.v[i] = parameter.v.buffer().address();
            list.grad[i] = parameter.grad.buffer().address();
            [list.keep[i], ..] = step.scalars(parameter.weight_decay);
        }
        list
    }
}

/// The weights in f32 and their rounded copy, which there is none of where they are f32 themselves.
pub(super) fn weights<'a, E: CudaElement>(
    weight: &'a mut Tensor<Cuda<E>, E>,
    master: Option<&'a mut Tensor<Cuda<E>, f32>>,
) -> (Out<'a, f32>, Option<Out<'a, bf16>>) {
    let weight: Out<E> = weight.pass();
    match master {
        None => (weight.of_type().expect("weights without a master are f32"), None),
        Some(master) => (master.pass(), Some(weight.of_type().expect("weights with a master are bf16"))),
    }
}

pub(super) fn step<E: CudaElement>(cuda: &Cuda<E>, args: AdamW<Cuda<E>>) -> Result<()> {
    args.check();
    let AdamW { mut parameters, grad_squares: squares, step } = args;
    // The rate and the correction are the same whatever the decay.
    let [_, rate, inv_sqrt_c2] = step.scalars(0.0);
    let AdamWStep { beta1, beta2, eps, max_grad_norm, .. } = step;
    let n_squares = squares.len();
    for parameters in parameters.chunks_mut(MOST_PARAMETERS) {
        let list = &AdamWList::new(parameters, &step);
        launch!(
            cuda,
            adamw::Adamw { list, squares, beta1, beta2, eps, rate, inv_sqrt_c2, max_grad_norm, n_squares },
            list.blocks.n_blocks(),
        )?;
    }
    Ok(())
}

pub(super) fn sum_of_squares<E: CudaElement>(
    cuda: &Cuda<E>,
    xs: &[&Tensor<Cuda<E>, f32>],
    out: &mut Tensor<Cuda<E>, f32>,
) -> Result<()> {
    assert_eq!(xs.len(), out.len(), "sum_of_squares: sums");
    TensorList::of(xs.iter().copied()).try_for_each(|(first, list)| {
        let n_blocks = list.blocks.n_blocks();
        // The partial sums are f64.
        let mut partials = cuda.scratch(2 * n_blocks)?;
        launch!(cuda, adamw::SumOfSquares { partials: &mut partials, list: &list }, n_blocks)?;
        let (out, partials) = (Out::rows(out, first), &partials);
        launch!(cuda, adamw::AddSquares { out, partials, list: &list }, list.len())
    })
}
