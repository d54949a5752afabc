//! The result of a benchmark as a line of a table and as JSON.

use super::{Bound, Ceilings, Measured, MemoryTaken, Op};
use serde::Serialize;
use std::fmt;

/// Result of one benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportRow {
    /// Operation that was measured.
    pub op: Op,
    /// Element type: f32 or bf16.
    pub dtype: &'static str,
    /// Direction and sizes.
    pub shape: String,
    /// Speed.
    pub measured: Measured,
    /// Speed with inputs in no cache, if that was measured.
    pub cold: Option<Measured>,
    /// Memory taken on the device, if that was counted.
    pub memory: Option<MemoryTaken>,
}

/// Column heads for the lines of [`ReportRow`]s.
pub fn table_head() -> String {
    format!("{:<20}{:<6}{:<33}{:>8}    {:>5} {:<7} {:>6} {}", "op", "dtype", "shape", "time", "rate", "", "share", "of")
}

impl Measured {
    /// GFLOP/s if the large matrix product is the ceiling, else GB/s.
    pub fn rate(&self) -> f64 {
        let work = if self.bound == Bound::Gemm { self.work.flops } else { self.work.bytes };
        work as f64 / self.seconds / 1e9
    }

    /// Tokens a second, if whole texts were handled.
    pub fn tokens_per_second(&self) -> Option<f64> {
        (self.work.tokens > 0).then(|| self.work.tokens as f64 / self.seconds)
    }
}

impl Bound {
    fn unit(self) -> &'static str {
        match self {
            Bound::Gemm => "GFLOP/s",
            Bound::Copy => "GB/s",
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Bound::Gemm => "gemm",
            Bound::Copy => "copy",
        })
    }
}

impl fmt::Display for Measured {
    /// Best time, rate, share of the ceiling if one is known, tokens/s.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (time, unit) = match self.seconds {
            s if s < 1e-3 => (s * 1e6, "us"),
            s if s < 1.0 => (s * 1e3, "ms"),
            s => (s, "s"),
        };
        write!(f, "{time:>7.1} {unit:<2}  {:>5.0} {:<7}", self.rate(), self.bound.unit())?;
        if let Some(share) = self.share {
            write!(f, " {:>4.0} % {}", 100.0 * share, self.bound)?;
        }
        match self.tokens_per_second() {
            Some(tokens) => write!(f, "  {tokens:.0} tokens/s"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ReportRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<20}{:<6}{:<33}{}", self.op, self.dtype, self.shape, self.measured)?;
        if let Some(cold) = self.cold {
            write!(f, "; from memory {cold}")?;
        }
        if let Some(MemoryTaken { peak, planned, .. }) = self.memory {
            let [peak, planned] = [peak, planned].map(|bytes| bytes.div_ceil(1 << 20));
            write!(f, "; {peak} MiB at most, {planned} by plan")?;
        }
        Ok(())
    }
}

impl fmt::Display for Ceilings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gemm {:.0} GFLOP/s, copy {:.1} GB/s (read and written)", self.gemm / 1e9, self.copy / 1e9)
    }
}

#[derive(Serialize)]
struct JsonRow<'a> {
    op: String,
    dtype: &'a str,
    shape: &'a str,
    seconds: f64,
    gflop_per_s: f64,
    gb_per_s: f64,
    tokens_per_s: Option<f64>,
    share: Option<f64>,
    of: String,
    cold_seconds: Option<f64>,
    peak_bytes: Option<u64>,
    planned_bytes: Option<u64>,
    reserved_bytes: Option<u64>,
    in_use_bytes: Option<u64>,
}

impl ReportRow {
    /// One JSON object on one line: op, dtype, shape, the best seconds, rates, and the share of the ceiling named in
    /// `of`. Rates of uncounted work are 0; `tokens_per_s` is null without whole texts, `cold_seconds` without flushed
    /// caches, `share` without ceilings, and the fields of [`MemoryTaken`] if memory is not counted.
    pub fn to_json(&self) -> String {
        let Measured { work, seconds, bound, share } = self.measured;
        let row = JsonRow {
            op: self.op.to_string(),
            dtype: self.dtype,
            shape: &self.shape,
            seconds,
            gflop_per_s: work.flops as f64 / seconds / 1e9,
            gb_per_s: work.bytes as f64 / seconds / 1e9,
            tokens_per_s: self.measured.tokens_per_second(),
            share,
            of: bound.to_string(),
            cold_seconds: self.cold.map(|cold| cold.seconds),
            peak_bytes: self.memory.map(|memory| memory.peak),
            planned_bytes: self.memory.map(|memory| memory.planned),
            reserved_bytes: self.memory.map(|memory| memory.reserved),
            in_use_bytes: self.memory.map(|memory| memory.in_use),
        };
        serde_json::to_string(&row).expect("numbers and text are JSON")
    }
}
