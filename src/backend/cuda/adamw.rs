//! AdamW in one pass over every parameter, and the sums of squares for gradient clipping.

use super::launch::{Arg, Grid, args};
use super::tensor_list::{LIST_THREADS, TensorBlocks, TensorList};
use super::{Cuda, CudaElement, Tensor};
use crate::Result;
use crate::backend::{AdamW, AdamWParameter, AdamWStep};

/// As in kernels/adamw.cu: threads of an update, elements each of them has, parameters in a launch.
const THREADS: usize = 512;
const UPDATED: usize = 4;
const MOST_PARAMETERS: usize = 76;

/// `AdamWList` of kernels/adamw.cu.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
struct AdamWList {
    w: [u64; MOST_PARAMETERS],
    copy: [u64; MOST_PARAMETERS],
    m: [u64; MOST_PARAMETERS],
    v: [u64; MOST_PARAMETERS],
    grad: [u64; MOST_PARAMETERS],
    keep: [f32; MOST_PARAMETERS],
    blocks: TensorBlocks<MOST_PARAMETERS>,
}

impl AdamWList {
    fn new<E: CudaElement>(parameters: &[AdamWParameter<Cuda<E>>], step: &AdamWStep) -> Self {
        let lens = parameters.iter().map(|parameter| parameter.weight.len());
        let blocks = TensorBlocks::new(lens, UPDATED * THREADS);
        let mut list = AdamWList { blocks, ..bytemuck::Zeroable::zeroed() };
        for (i, parameter) in parameters.iter().enumerate() {
            [list.w[i], list.copy[i]] = weights(parameter.weight, parameter.master.as_deref());
            list.m[i] = parameter.m.buffer().address();
            list.v[i] = parameter.v.buffer().address();
            list.grad[i] = parameter.grad.buffer().address();
            [list.keep[i], ..] = step.scalars(parameter.weight_decay);
        }
        list
    }
}

/// Addresses of the weights in f32 and of their rounded copy, null where they are f32 themselves.
pub(super) fn weights<E: CudaElement>(weight: &Tensor<Cuda<E>, E>, master: Option<&Tensor<Cuda<E>, f32>>) -> [u64; 2] {
    let weight = weight.buffer().address();
    master.map_or([weight, 0], |master| [master.buffer().address(), weight])
}

pub(super) fn step<E: CudaElement>(cuda: &Cuda<E>, args: AdamW<Cuda<E>>) -> Result<()> {
    args.check();
    let AdamW { parameters, grad_squares, step } = args;
    // The rate and the correction are the same whatever the decay.
    let [_, rate, inv_sqrt_c2] = step.scalars(0.0);
    let AdamWStep { beta1, beta2, eps, max_grad_norm, .. } = step;
    for parameters in parameters.chunks(MOST_PARAMETERS) {
        let list = AdamWList::new(parameters, &step);
        let n_squares = grad_squares.len();
        let args =
            args![Arg::of_struct(&list), grad_squares, beta1, beta2, eps, rate, inv_sqrt_c2, max_grad_norm, n_squares];
        cuda.launch("adamw", "adamw", Grid::new(list.blocks.n_blocks(), THREADS), args)?;
    }
    Ok(())
}

pub(super) fn sum_of_squares<E: CudaElement>(
    cuda: &Cuda<E>,
    xs: &[&Tensor<Cuda<E>, f32>],
    out: &mut Tensor<Cuda<E>, f32>,
) -> Result<()> {
    assert_eq!(xs.len(), out.len(), "sum_of_squares: sums");
    let out = out.buffer().address();
    TensorList::of(xs.iter().copied()).try_for_each(|(first, list)| {
        let n_blocks = list.blocks.n_blocks();
        // The partial sums are f64.
        let partials = &cuda.scratch(2 * n_blocks)?;
        let of_list = Arg::of_struct(&list);
        cuda.launch("adamw", "sum_of_squares", Grid::new(n_blocks, LIST_THREADS), args![partials, of_list])?;
        let out = Arg::pointer(out + (first * size_of::<f32>()) as u64);
        cuda.launch("adamw", "add_squares", Grid::new(list.len(), LIST_THREADS), args![out, partials, of_list])
    })
}
