//! Which of the algorithms that cuBLASLt's heuristic names is the fastest.

use super::super::api::Opened;
use super::super::api::cublaslt::CublasLt;
use super::super::driver::{Context, Event, Stream};
use super::super::memory::DeviceBuffer;
use super::super::variable;
use super::choices::{Choice, Choices};
use super::plan::ProductPlan;
use super::{Blas, Operands, Shape, WORKSPACE};
use crate::Result;
use cudarc::cublaslt::sys::cublasLtMatmulAlgo_t;

/// Times that each algorithm is timed, in turns, so that a change of the clock strikes all; the least counts.
const ROUNDS: usize = 3;
/// Products in a row that are timed together.
const PRODUCTS: usize = 2;
/// Share of the first one's time that another must stay below: timing has noise, and the heuristic knows more than one size.
const WORTH_IT: f32 = 0.98;

/// Whether algorithms are to be timed: `HBT_CUBLASLT_TUNE` is `on` or `off`; by itself `on`, but under a checker of memory
/// accesses, whose times are its own.
///
/// # Errors
/// Any other value.
pub fn is_wanted(memory_is_checked: bool) -> Result<bool> {
    Ok(variable("HBT_CUBLASLT_TUNE", &[("on", true), ("off", false)])?.unwrap_or(!memory_is_checked))
}

/// The choices for this GPU and version of cuBLASLt, where there is a cache to keep them in.
pub(super) fn choices(context: &Context, lt: &Opened<CublasLt>) -> Option<Choices> {
    // SAFETY: takes nothing.
    let version = unsafe { lt.cublasLtGetVersion() };
    let (name, (major, minor)) = (&context.name, context.capability);
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let stem = format!("products-{plain}-sm_{major}{minor}-cublaslt{version}");
    Choices::open(
        &stem,
        &format!("{name}, sm_{major}{minor}; cuBLASLt {version}; {} MiB of workspace", WORKSPACE >> 20),
    )
}

impl Blas {
    /// Has the plan take the algorithm that is, or was once, the fastest at a product of `shape`; leaves it as it is where
    /// that is not to be known.
    pub(super) fn choose(&mut self, plan: &mut ProductPlan, stream: &Stream, shape: Shape, operands: Operands) {
        let Some(mut choices) = self.choices.take() else { return };
        let accepts = |words: &[u64; 8]| plan.accepts(self.handle, &cublasLtMatmulAlgo_t { data: *words }, WORKSPACE);
        let time = || self.fastest(plan, stream, shape, operands).ok();
        let choice = choices.settle(&shape.rounded().to_string(), accepts, time);
        self.choices = Some(choices);
        if let Some(choice) = choice {
            plan.algorithm.data = choice.algorithm;
        }
    }

    /// The first where nothing can be timed: that, too, has to stay the choice. What `out` holds stays if it is added to;
    /// else it is undefined afterwards.
    fn fastest(&self, plan: &ProductPlan, stream: &Stream, shape: Shape, operands: Operands) -> Result<Choice> {
        let first = Choice { algorithm: plan.candidates()[0].data, microseconds: [0.0; 2] };
        let bytes = shape.m * shape.leading_dimensions()[2] * shape.output.bytes();
        let scratch = shape.accumulate.then(|| DeviceBuffer::<u8>::new(&self.scratch, bytes)).transpose();
        let (Ok(scratch), true) = (scratch, plan.candidates().len() > 1) else { return Ok(first) };
        let out = scratch.as_ref().map_or(operands.out, DeviceBuffer::address);
        let run = |algorithm: &cublasLtMatmulAlgo_t| {
            plan.run(algorithm, self.handle, stream, shape, Operands { out, ..operands }, &self.workspace)
        };
        // Once beforehand: the first run of a kernel loads it.
        let able: Vec<_> = plan.candidates().iter().filter(|algorithm| run(algorithm).is_ok()).collect();
        let mut least = vec![f32::INFINITY; able.len()];
        for _ in 0..ROUNDS {
            for (algorithm, least) in able.iter().zip(&mut least) {
                let [start, end] = [Event::new(&stream.context, true)?, Event::new(&stream.context, true)?];
                start.record(stream)?;
                let done = (0..PRODUCTS).all(|_| run(algorithm).is_ok());
                end.record(stream)?;
                end.synchronize()?;
                if done {
                    *least = least.min(1e3 * start.milliseconds_to(&end)? / PRODUCTS as f32);
                }
            }
        }
        // Nothing may use the scratch memory any more when it goes.
        stream.synchronize()?;
        let Some(&of_first) = least.first() else { return Ok(first) };
        let best = (0..able.len()).min_by(|&i, &j| least[i].total_cmp(&least[j])).expect("there is one");
        let best = if least[best] < WORTH_IT * of_first { best } else { 0 };
        Ok(Choice { algorithm: able[best].data, microseconds: [least[best], of_first] })
    }
}
