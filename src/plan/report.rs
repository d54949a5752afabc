//! A plan in words and numbers.

use super::{Efficiency, Item, Machine, Plan, Question, StepTime, Verdict};
use crate::config::Config;
use crate::model::specs;
use serde_json::{Value, json};
use std::fmt::{self, Write};

/// A plan, as it is printed.
pub struct Report<'a> {
    /// What was asked.
    pub question: &'a Question<'a>,
    /// What the model is called.
    pub model_name: &'a str,
    /// The answer.
    pub plan: &'a Plan,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { question, plan, .. } = self;
        let (config, machine, batches) = (&plan.config, question.machine, &plan.batches);
        let model = &question.model.config;
        writeln!(
            f,
            "model    {}: {} layers, hidden size {}, {} million parameters, {}",
            self.model_name,
            model.num_hidden_layers,
            model.hidden_size,
            count(self.n_parameters() as f64 / 1e6),
            config.precision
        )?;
        writeln!(f, "data     {}", batches.basis)?;
        writeln!(
            f,
            "batches  {} queries, {} texts; {} tokens on average, {} in the largest looked at, {} at most",
            config.batch_size,
            batches.largest.n_seqs,
            count(batches.mean_tokens),
            count(batches.largest.n_tokens as f64),
            count(batches.bounds.n_tokens as f64)
        )?;
        writeln!(f, "machine  {}", machine.name)?;
        writeln!(f, "\n{:<18}{:>10}", "memory", "MiB")?;
        let name = |name: &str| if name.len() > 17 { format!("{name}\n{:<18}", "") } else { format!("{name:<18}") };
        for Item { name: what, bytes, note } in &plan.needs.items {
            writeln!(f, "{}{:>10}   {note}", name(what), mib(*bytes))?;
        }
        writeln!(f, "{:<18}{:>10}   {}", "total", mib(plan.needs.total()), self.verdict())?;
        self.chunks(f)?;
        if let Some(change) = &plan.change {
            writeln!(f, "\nto fit: {change}")?;
        }
        if let Some(time) = &plan.time {
            self.time(f, time)?;
        }
        Ok(())
    }
}

impl Report<'_> {
    fn n_parameters(&self) -> usize {
        let model = self.question.model;
        specs(&model.config, model.dense.as_ref()).iter().map(|spec| spec.len()).sum()
    }

    fn verdict(&self) -> String {
        let Some(memory) = self.question.machine.memory else { return "of an amount that is not known".to_owned() };
        let word = match self.plan.verdict {
            Verdict::Fits | Verdict::Unknown => "fits",
            Verdict::Barely => "may not fit: a plan is right to about 10 %",
            Verdict::DoesNot => "does not fit",
        };
        format!("of {} available: {word}", mib(memory))
    }

    fn chunks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { config, chunks: [n, twice], most_chunk_tokens, .. } = self.plan;
        let chunk_tokens = config.chunk_tokens.or(Config::CHUNK_TOKENS);
        let found = |is_auto: bool| if is_auto { " (auto)" } else { "" };
        let own = self.question.config;
        let is_auto = |amount| amount == crate::config::Amount::Auto;
        writeln!(
            f,
            "\nchunk_tokens = {chunk_tokens}{}, kept_chunks = {}{}: a batch is {}, {twice} of them computed twice",
            found(is_auto(own.chunk_tokens)),
            config.kept_chunks.or(1),
            found(is_auto(own.kept_chunks)),
            plural(*n, "chunk")
        )?;
        match most_chunk_tokens {
            None => writeln!(f, "not even chunks of {} tokens fit, the longest text", self.plan.batches.bounds.longest),
            Some((_, true)) => writeln!(
                f,
                "chunks of any size fit: the largest batch has {} tokens",
                count(self.plan.batches.bounds.n_tokens as f64)
            ),
            Some((most, false)) => writeln!(f, "the largest chunk_tokens that fits, where one chunk is kept: {most}"),
        }
    }

    fn time(&self, f: &mut fmt::Formatter<'_>, time: &StepTime) -> fmt::Result {
        let machine = self.question.machine;
        let efficiency = Efficiency::of(machine);
        let speed = machine.speed.expect("a plan with a time knows the machine's speed");
        let (source, of) = match speed.is_measured {
            true => ("measured just now", "this machine's"),
            false => ("published", "the published"),
        };
        let tokens = self.plan.batches.mean_tokens;
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        writeln!(
            f,
            "\na step    {} FLOP in {} operations, at least {}B read and written",
            si(time.flops),
            count(time.n_operations),
            si(time.bytes)
        )?;
        writeln!(f, "          {} projected: {} tokens/s", duration(time.seconds), count(tokens / time.seconds))?;
        writeln!(
            f,
            "the run   {}: {}, evaluation not counted",
            plural(self.plan.batches.total_steps as usize, "step"),
            duration(time.seconds * self.plan.batches.total_steps as f64)
        )?;
        writeln!(
            f,
            "\nProjected, not measured: products at {} and attention at {} of {of} {}FLOP/s, everything at {} of {}B/s ({source})",
            percent(efficiency.products),
            percent(efficiency.attention),
            si(speed.products),
            percent(efficiency.memory),
            si(speed.memory)
        )
    }

    /// The same for programs. Bytes and seconds.
    pub fn to_json(&self) -> Value {
        let Plan { config, batches, needs, verdict, most_chunk_tokens, change, chunks: [n, twice], time } = self.plan;
        let Machine { name, is_gpu, memory, speed, .. } = self.question.machine;
        let items = needs.items.iter().map(|item| json!({"item": item.name, "bytes": item.bytes, "note": item.note}));
        json!({
            "model": self.model_name,
            "parameters": self.n_parameters(),
            "precision": config.precision.to_string(),
            "data": batches.basis,
            "machine": {"name": name, "gpu": is_gpu, "memory": memory,
                "flops_per_second": speed.map(|speed| speed.products), "bytes_per_second": speed.map(|speed| speed.memory),
                "measured": speed.map(|speed| speed.is_measured)},
            "memory": items.collect::<Vec<_>>(),
            "total": needs.total(),
            "fits": match verdict {
                Verdict::Fits => json!(true),
                Verdict::DoesNot => json!(false),
                Verdict::Barely | Verdict::Unknown => Value::Null,
            },
            "change": change,
            "chunk_tokens": config.chunk_tokens.or(Config::CHUNK_TOKENS),
            "kept_chunks": config.kept_chunks.or(1),
            "most_chunk_tokens": most_chunk_tokens.map(|(most, _)| most),
            "chunks": n,
            "chunks_computed_twice": twice,
            "batch_size": config.batch_size,
            "tokens_per_step": batches.mean_tokens,
            "steps": batches.total_steps,
            "flops_per_step": time.map(|time| time.flops),
            "least_bytes_per_step": time.map(|time| time.bytes),
            "projected_seconds_per_step": time.map(|time| time.seconds),
            "projected_seconds": time.map(|time| time.seconds * batches.total_steps as f64),
        })
    }
}

/// `31.2 GiB`
pub fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// `12,345`; one decimal below 100.
fn mib(bytes: u64) -> String {
    count(bytes as f64 / f64::from(1 << 20))
}

/// With commas; with a decimal where it has fewer than three digits.
fn count(number: f64) -> String {
    if number < 99.95 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.23 T`: three digits and the letter of a power of 1000.
fn si(number: f64) -> String {
    let (mut number, mut letters) = (number, ["", "k", "M", "G", "T", "P", "E"].iter());
    let mut letter = letters.next();
    while number >= 999.5
        && let Some(next) = letters.next()
    {
        (number, letter) = (number / 1000.0, Some(next));
    }
    let decimals = if number < 9.995 { 2 } else { usize::from(number < 99.95) };
    format!("{number:.decimals$} {}", letter.unwrap_or(&""))
}

/// In the unit that suits it.
fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1.0 => (s * 1e3, "ms"),
        s if s < 120.0 => (s, "seconds"),
        s if s < 7200.0 => (s / 60.0, "minutes"),
        s => (s / 3600.0, "hours"),
    };
    let decimals = usize::from(value < 99.95);
    format!("{value:.decimals$} {unit}")
}

fn plural(n: usize, what: &str) -> String {
    let mut text = format!("{} {what}", count(n as f64));
    if n != 1 {
        let _ = text.write_char('s');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            ["0", "7", "12.3", "100", "1,234", "1,234,567"],
            [0.0, 7.0, 12.34, 99.96, 1234.4, 1_234_567.0].map(count).each_ref().map(String::as_str)
        );
        assert_eq!(
            ["0.00 ", "999 ", "1.00 k", "12.3 M", "123 G", "1.98 T"],
            [0.0, 999.0, 999.7, 12.34e6, 123.4e9, 1.98e12].map(si).each_ref().map(String::as_str)
        );
        assert_eq!(
            ["12.0 ms", "100 seconds", "2.0 minutes", "2.0 hours", "120 hours"],
            [0.012, 100.0, 120.0, 7200.0, 432_000.0].map(duration).each_ref().map(String::as_str)
        );
        assert_eq!((plural(1, "chunk"), plural(1200, "step")), ("1 chunk".to_owned(), "1,200 steps".to_owned()));
    }
}
