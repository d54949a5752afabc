//! The report of a plan, as text and JSON.

use super::numbers::{count, duration, mib, plural, si};
use super::{Batches, Cluster, Data, Efficiency, Item, Machine, Plan, Question, StepTime, Traffic, Verdict};
use crate::model::specs;
use crate::train::TrainSettings;
use serde_json::{Value, json};
use std::fmt;

/// A plan with the names that its report needs.
pub struct Report<'a> {
    /// The run that was planned.
    pub question: &'a Question<'a>,
    /// Name of the model.
    pub model_name: &'a str,
    /// The answer.
    pub plan: &'a Plan,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_run(f)?;
        self.fmt_memory(f)?;
        self.fmt_chunks(f)?;
        if let Some(change) = &self.plan.change {
            writeln!(f, "to make it fit: {change}")?;
        }
        self.fmt_exchange(f)?;
        match (&self.plan.time, self.question.machine.speed) {
            (Some(time), Some(_)) => self.fmt_time(f, time),
            _ => Ok(()),
        }
    }
}

impl Report<'_> {
    fn fmt_run(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (settings, batches, model) = (&self.plan.settings, &self.plan.batches, &self.question.model.config);
        let (layers, hidden) = (plural(model.layers.len(), "layer"), model.hidden_size);
        let millions = count(self.n_parameters() as f64 / 1e6);
        let precision = self.question.precision;
        writeln!(
            f,
            "model     {}: {layers}, hidden size {hidden}, {millions} million parameters, in {precision}",
            self.model_name
        )?;
        writeln!(f, "data      {}", batches.basis)?;
        if let Some(caution) = &batches.caution {
            writeln!(f, "caution   by what was read of the data, hbt train may refuse it: {caution}")?;
        }
        let (queries, texts) = (settings.sampler.batch_size, batches.largest.n_seqs);
        let [mean, largest] = [batches.mean_tokens, batches.largest.n_tokens as f64].map(count);
        let most = count(batches.bounds.n_tokens as f64);
        writeln!(
            f,
            "batches   {queries} queries, {texts} texts; {mean} tokens on average, {largest} seen, {most} at most"
        )?;
        writeln!(f, "machine   {}", self.question.machine.name)?;
        let Cluster { devices, nodes, .. } = self.question.cluster;
        match self.question.cluster.size() {
            1 => Ok(()),
            n if nodes == 1 => writeln!(f, "ranks     {n}; memory and work are those of one"),
            n => writeln!(f, "ranks     {n}, {devices} on each of {nodes} machines; memory and work are those of one"),
        }
    }

    fn fmt_memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { needs, verdict, .. } = self.plan;
        writeln!(f, "\n{:<18}{:>10}", "memory", "MiB")?;
        for Item { name, bytes, note } in &needs.items {
            writeln!(f, "{name:<18}{:>10}   {note}", mib(*bytes))?;
        }
        let available = self.question.machine.memory.map_or("an unknown amount".to_owned(), mib);
        let fits = match verdict {
            Verdict::Fits => ": it fits",
            Verdict::Barely => ": it may not fit, for a plan is right to about 10 %",
            Verdict::DoesNot => ": it does not fit",
            Verdict::Unknown => "",
        };
        writeln!(f, "{:<18}{:>10}   of {available} available{fits}\n", "total", mib(needs.total()))
    }

    fn fmt_chunks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { settings, chunks: [n, twice], most_chunk_tokens, more_kept_chunks, batches, .. } = self.plan;
        let found = |is_auto| if is_auto { " (auto)" } else { "" };
        let TrainSettings { chunk_tokens, kept_chunks, .. } = settings;
        let [of_chunks, of_kept] = self.are_auto().map(|(_, is_auto)| found(is_auto));
        let chunks = plural(*n, "chunk");
        let twice = if *twice == 0 { "none".to_owned() } else { count(*twice as f64) };
        writeln!(f, "chunk_tokens = {chunk_tokens}{of_chunks}, kept_chunks = {kept_chunks}{of_kept}")?;
        writeln!(f, "  a batch is {chunks}, {twice} of them computed twice")?;
        if let Some(asked) = self.too_many_kept_chunks() {
            writeln!(f, "  kept_chunks = {asked} is more than a batch has")?;
        }
        if let Some(kept) = more_kept_chunks {
            let left = if kept < n { count((n - kept) as f64) } else { "none".to_owned() };
            writeln!(f, "  kept_chunks = {kept} fits too: then {left} are computed twice, and steps are faster")?;
        }
        match most_chunk_tokens {
            None => writeln!(f, "  not even chunks of the longest text fit, {} tokens", batches.bounds.longest),
            Some((_, true)) => writeln!(f, "  chunks of any size fit, with one of them kept"),
            Some((most, false)) => writeln!(f, "  the largest chunk_tokens that fits, with one chunk kept: {most}"),
        }
    }

    /// The kinds of what ranks exchange, with what there is to say of each.
    fn exchanged(&self) -> impl Iterator<Item = (&'static str, Traffic, String)> {
        let exchanged = &self.plan.exchanged;
        let row_bytes = (self.question.model.config.hidden_size * size_of::<f32>()) as f64;
        let n_words = count((exchanged.words.bytes / row_bytes).round());
        let words = match self.question.data {
            Data::Tokens(_) => format!("added up, of {n_words} different tokens"),
            // Those of texts that are not tokenized count as all different.
            Data::Sample(_) => format!("added up, of at most {n_words} different tokens; hbt prepare counts them"),
        };
        let notes = ["gathered".to_owned(), "added up".to_owned(), words];
        exchanged.kinds().into_iter().zip(notes).map(|((name, traffic), note)| (name, traffic, note))
    }

    fn fmt_exchange(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Question { cluster, machine, .. } = self.question;
        if cluster.size() == 1 {
            return Ok(());
        }
        let (Some(speed), Some(exchange), Some(all)) =
            (cluster.bandwidth(machine), self.plan.exchange_seconds, self.plan.seconds())
        else {
            return Ok(());
        };
        let mb = |bytes: f64| count(bytes / 1e6);
        writeln!(f, "\n{:<18}{:>10}{:>10}", "exchange", "MB", "received")?;
        for (name, Traffic { bytes, received }, note) in self.exchanged() {
            writeln!(f, "{name:<18}{:>10}{:>10}   {note}", mb(bytes), mb(received))?;
        }
        let (received, share) = (mb(self.plan.exchanged.received()), 100.0 * exchange / all);
        writeln!(
            f,
            "{:<18}{:>10}{received:>10}   by each rank, at {}B/s: {}, {share:.1} % of a step, beside no other work",
            "total",
            "",
            si(speed),
            duration(exchange)
        )
    }

    fn fmt_time(&self, f: &mut fmt::Formatter<'_>, time: &StepTime) -> fmt::Result {
        let machine = self.question.machine;
        let Some(speed) = machine.speed else { return Ok(()) };
        let Efficiency { products, attention, memory, .. } = Efficiency::of(machine);
        let [products, attention, memory] =
            [products, attention, memory].map(|share| format!("{:.0} %", 100.0 * share));
        let source = if speed.measured.is_some() { "measured a moment ago" } else { "published by the maker" };
        let n_steps = self.plan.batches.total_steps;
        let at_most = if self.plan.batches.is_at_most { "at most " } else { "" };
        let seconds = self.plan.seconds().unwrap_or(time.seconds);
        let tokens_per_second = count((self.plan.batches.mean_tokens / seconds).round());
        let (flops, bytes, n_operations) = (si(time.flops), si(time.bytes), count(time.n_operations.round()));
        writeln!(f, "\na step    {flops}FLOP in {n_operations} operations, which read and write at least {bytes}B")?;
        writeln!(f, "          about {}: {tokens_per_second} tokens/s", duration(seconds))?;
        writeln!(
            f,
            "the run   {at_most}{}: about {}, evaluation not counted",
            plural(n_steps as usize, "step"),
            duration(seconds * n_steps as f64)
        )?;
        let (peak, bandwidth) = (si(speed.products), si(speed.memory));
        writeln!(
            f,
            "          projected, not measured: products at {products} and attention at {attention} of {peak}FLOP/s,"
        )?;
        writeln!(f, "          everything at no more than {memory} of {bandwidth}B/s (both {source})")?;
        if let Some(measured) = speed.measured.filter(|measured| measured.was_busy()) {
            let share = format!("{:.0} %", 100.0 * measured.others);
            writeln!(
                f,
                "busy      other work took {share} of this machine meanwhile; without it these times may be shorter,"
            )?;
            writeln!(f, "          and beside it steps take longer")?;
        }
        Ok(())
    }

    /// The keys that a configuration may leave to a plan, and whether this one does.
    fn are_auto(&self) -> [(&'static str, bool); 2] {
        let open = self.question.open;
        [("chunk_tokens", open.chunk_tokens), ("kept_chunks", open.kept_chunks)]
    }

    /// The configured number of kept chunks, if a batch has fewer.
    fn too_many_kept_chunks(&self) -> Option<usize> {
        let asked = self.question.settings.kept_chunks;
        (!self.question.open.kept_chunks && asked > self.plan.settings.kept_chunks).then_some(asked)
    }

    fn n_parameters(&self) -> usize {
        let model = self.question.model;
        specs(&model.config, model.dense.as_ref()).iter().map(|spec| spec.len()).sum()
    }

    /// The report for programs: bytes, seconds, and shares of 1. Values that the text does not mention are null.
    pub fn to_json(&self) -> Value {
        let Plan { settings, batches, needs, verdict, change, most_chunk_tokens, .. } = self.plan;
        let model = &self.question.model.config;
        let items = needs.items.iter().map(|item| json!({"item": item.name, "bytes": item.bytes, "note": item.note}));
        json!({
            "model": self.model_name,
            "layers": model.layers.len(),
            "hidden_size": model.hidden_size,
            "parameters": self.n_parameters(),
            "precision": self.question.precision.to_string(),
            "data": batches.basis,
            "caution": batches.caution,
            "machine": self.machine_to_json(),
            "memory": items.collect::<Vec<_>>(),
            "total": needs.total(),
            "fits": match verdict {
                Verdict::Fits => Some(true),
                Verdict::DoesNot => Some(false),
                Verdict::Barely | Verdict::Unknown => None,
            },
            "change": change,
            "batch_size": settings.sampler.batch_size,
            "texts_per_step": batches.largest.n_seqs,
            "tokens_per_step": batches.mean_tokens,
            "most_tokens_seen": batches.largest.n_tokens,
            "tokens_at_most": batches.bounds.n_tokens,
            "longest_text": batches.bounds.longest,
            "chunk_tokens": settings.chunk_tokens,
            "kept_chunks": settings.kept_chunks,
            "kept_chunks_asked": self.too_many_kept_chunks(),
            "auto": self.are_auto().iter().filter(|(_, is_auto)| *is_auto).map(|(key, _)| *key).collect::<Vec<_>>(),
            "most_chunk_tokens": match most_chunk_tokens {
                None => Value::Null,
                Some((_, true)) => "any".into(),
                Some((most, false)) => json!(most),
            },
            "most_kept_chunks": self.plan.more_kept_chunks,
            "chunks": self.plan.chunks[0],
            "chunks_computed_twice": self.plan.chunks[1],
            "steps": batches.total_steps,
            "steps_at_most": batches.is_at_most,
            "projected": self.projection_to_json(),
            "ranks": self.ranks_to_json(),
        })
    }

    fn ranks_to_json(&self) -> Option<Value> {
        let Question { cluster, machine, .. } = self.question;
        let of_kind = |(name, Traffic { bytes, received }, note): (&str, _, String)| -> Value {
            let [name, bytes, received, note]: [Value; 4] = [name.into(), bytes.into(), received.into(), note.into()];
            [("item", name), ("bytes", bytes), ("received", received), ("note", note)].into_iter().collect()
        };
        let share = self.plan.exchange_seconds.zip(self.plan.seconds()).map(|(exchange, all)| exchange / all);
        (cluster.size() > 1).then(|| {
            json!({
                "ranks": cluster.size(),
                "devices": cluster.devices,
                "nodes": cluster.nodes,
                "exchange": self.exchanged().map(of_kind).collect::<Vec<_>>(),
                "received_per_step": self.plan.exchanged.received(),
                "bytes_per_second": cluster.bandwidth(machine),
                "seconds_per_step": self.plan.exchange_seconds,
                "share_of_step": share,
            })
        })
    }

    fn machine_to_json(&self) -> Value {
        let Machine { name, is_gpu, memory, speed, .. } = self.question.machine;
        json!({
            "name": name,
            "gpu": is_gpu,
            "memory": memory,
            "flops_per_second": speed.map(|speed| speed.products),
            "bytes_per_second": speed.map(|speed| speed.memory),
            "measured": speed.map(|speed| speed.measured.is_some()),
            "busy": speed.and_then(|speed| speed.measured).map(|measured| measured.others),
        })
    }

    fn projection_to_json(&self) -> Option<Value> {
        let StepTime { flops, bytes, n_operations, seconds } = self.plan.time?;
        let seconds = self.plan.seconds().unwrap_or(seconds);
        let Efficiency { products, attention, memory, launch, .. } = Efficiency::of(self.question.machine);
        let Batches { mean_tokens, total_steps, .. } = self.plan.batches;
        Some(json!({
            "flops_per_step": flops,
            "least_bytes_per_step": bytes,
            "operations_per_step": n_operations,
            "seconds_per_step": seconds,
            "tokens_per_second": mean_tokens / seconds,
            "seconds": seconds * total_steps as f64,
            "efficiency": {"products": products, "attention": attention, "memory": memory, "launch_seconds": launch},
        }))
    }
}
