//! The contrastive loss.
//!
//! # What it asks of a GPU's memory
//!
//! Megabytes that kernels and products ask for, forward and backward, bf16, one direction, 16,384 queries x 768 dimensions,
//! without and with one hard negative a query; `cargo test --release cuda::traffic::the_loss -- --nocapture` counts them on
//! the stand-in at small shapes, where a formula has to give the same to the byte, and prints the formula's values here.
//! Every request of every lane counts, but of products each operand once, whoever computes them.
//!
//! | part | 16,384 passages | 32,768 |
//! |---|--:|--:|
//! | `gather_rows`: vectors in bf16, and scaled queries | 234.9 | 312.5 |
//! | `info_nce_shift`: positives' cosines | 50.5 | 50.5 |
//! | `info_nce_exps`: operands | 50.3 | 75.5 |
//! | `info_nce_exps`: exponentials, sums, masks | 583.0 | 1,166.0 |
//! | `info_nce_finish`: sums | 17.3 | 34.0 |
//! | product: gradient of the passages | 612.4 | 1,199.6 |
//! | product: gradient of the queries | 612.4 | 1,174.4 |
//! | `scatter_rows`, copies | 207.9 | 310.7 |
//! | all | 2,368.6 | 4,323.2 |
//! | the embeddings once and their gradient once | 201.3 | 302.0 |
//! | with scores in memory, in blocks of 1,024 rows (by arithmetic) | 8,834.1 | 18,460.0 |
//!
//! Of what is left, the exponentials, written once and read by both gradients' products, are two thirds. Tiles of
//! `info_nce_exps`, 128 x 256, ask the second-level cache for their operands 4,832 and 9,664 MB in all, as a library's would.
//! Other ways, counted likewise: scores in f32, read once with their masks as bits, 4,320 and 8,661 MB; scores in f16, 3,246
//! and 6,212; scores computed twice instead of exponentials kept by a known shift, 2,257 and 4,207 with a third more
//! arithmetic, which is what both directions at once would take.
//!
//! A score takes 13 instructions outside of the tensor cores' product, where a kernel of its own took 83. Both directions,
//! candidates on both sides, a teacher, f32, and dimensions that are no multiple of 8 have scores in memory; there it takes 45,
//! in rows that are read twice.

mod info_nce;
mod pass;
mod report;
mod temperature;

pub use info_nce::{DistillationConfig, InfoNce, LossConfig};
pub use report::LossReport;
pub use temperature::LearnedTemperature;
