//! `hbt encode`

use super::device::{Job, on_device};
use super::gpus::asked_for;
use super::inputs::Inputs;
use super::model::{kernels_of, model_dir};
use super::output::{Kind, Output, is_stdout, refuse_foreign, refuse_other_name};
use super::ranks;
use super::setup::finish;
use super::texts::{Request, Texts};
use hbt::backend::Backend;
use hbt::backend::cuda::Kernels;
use hbt::cli::{EncodeArgs, EncodeAs, EncodeFormat};
use hbt::config::{Config, Draft};
use hbt::model_dir::ModelDir;
use hbt::npy::NpyWriter;
use hbt::progress::{Counter, say};
use hbt::retriever::{COLLAPSED, Embeddings, Retriever, RetrieverSettings, TextKind};
use hbt::train::Ranks;
use hbt::{Error, Result};
use serde_json::{Map, Value};
use std::io::{self, Write};
use std::path::Path;

/// Embeds the input's texts and writes them in their order.
pub fn run(args: EncodeArgs) -> Result<()> {
    // Read once: a configuration may come through a pipe.
    let draft = args.draft();
    ranks::run(asked_for(&draft), |ranks| encode_among(&args, draft?, ranks))
}

fn encode_among(args: &EncodeArgs, draft: Draft, ranks: &Ranks) -> Result<()> {
    let config = finish(draft)?;
    let mut inputs = Inputs::of(&config, args.config.config.as_deref());
    inputs.add("the input", Some(&args.input));
    inputs.refuse_trace(&args.trace)?;
    if ranks.leads() {
        check_output(args, &inputs)?;
    }
    let (field, format, encode_as) = (args.field.as_deref(), args.input_format, args.encode_as);
    let request = Request { path: &args.input, format, field, encode_as };
    // One that comes through a pipe comes to the first rank.
    let texts = ranks::of_first(ranks, || Texts::read(&request))?;
    let dir = ranks::first_of_machine(ranks, || model_dir(&config))?;
    let settings = config.retriever(&dir)?;
    let prefix = match &kind_of(&settings, encode_as).prefix[..] {
        "" => "without a prefix".to_owned(),
        prefix => format!("each behind {prefix:?}"),
    };
    say(&format!("{}; as {encode_as}, {prefix}", texts.taken));
    on_device(&config, EncodeJob { dir, settings, config: &config, args, ranks, texts })
}

/// Fails if the output would replace what it must not.
fn check_output(args: &EncodeArgs, inputs: &Inputs) -> Result<()> {
    inputs.refuse("--output", &args.output)?;
    if args.format.is_none() {
        refuse_other_name("--output", &args.output)?;
    }
    if args.overwrite { Ok(()) } else { refuse_foreign("--output", &args.output, Kind::Embeddings) }
}

fn kind_of(settings: &RetrieverSettings, encode_as: EncodeAs) -> &TextKind {
    match encode_as {
        EncodeAs::Query => &settings.query,
        EncodeAs::Passage => &settings.passage,
    }
}

struct EncodeJob<'a> {
    dir: ModelDir,
    settings: RetrieverSettings,
    config: &'a Config,
    args: &'a EncodeArgs,
    ranks: &'a Ranks,
    texts: Texts,
}

impl Job for EncodeJob<'_> {
    type Output = ();

    fn kernels(&self) -> Result<Kernels> {
        Ok(kernels_of(&self.dir, false))
    }

    fn ranks(&self) -> Ranks {
        self.ranks.clone()
    }

    fn run<B: Backend>(self, backend: B) -> Result<()> {
        let retriever = Retriever::load(backend, self.dir, self.settings)?;
        ranks::require_same_model(self.ranks, self.config, &retriever)?;
        let kind = kind_of(&retriever.settings, self.args.encode_as);
        let Texts { texts, ids, .. } = &self.texts;
        let open = || Sink::open(&self.args.output, self.args.format, retriever.embedding_size());
        let mut sink = if self.ranks.leads() { open()? } else { Sink::Nowhere };
        if matches!(sink, Sink::Npy(_)) && !ids.is_empty() {
            say("an .npy file has no place for ids: its rows are in the order of the texts");
        }
        let total = texts.len() as u64;
        let counter = Counter::new("embedded", total);
        let mut done = 0;
        let (all, peers) = (texts.iter().map(String::as_str).collect::<Vec<_>>(), self.ranks.peers());
        let progress = &mut |n| counter.set(n as u64, total);
        let summary = retriever.encode_windows_among(peers, kind, &all, progress, &mut |embeddings| {
            let window = done..done + embeddings.n_rows();
            done = window.end;
            sink.write(&texts[window.clone()], ids.get(window).unwrap_or_default(), &embeddings)
        })?;
        sink.finish()?;
        counter.finish(&format!("{total} texts"));
        kind.cut_note(summary.n_cut, summary.n_texts, "texts").iter().for_each(|note| say(note));
        if summary.is_collapsed {
            say(&format!("warning: {COLLAPSED}"));
        }
        if total == 0 {
            say("warning: there was no text in the input");
        }
        Ok(())
    }
}

/// Destination of the embeddings.
enum Sink {
    Npy(NpyWriter),
    Jsonl(Output),
    /// Another process writes them.
    Nowhere,
}

impl Sink {
    fn open(output: &Path, format: Option<EncodeFormat>, dim: usize) -> Result<Self> {
        let by_name =
            if output.extension().is_some_and(|e| e == "npy") { EncodeFormat::Npy } else { EncodeFormat::Jsonl };
        if let Some(format) = format.filter(|format| *format != by_name && is_called_otherwise(output)) {
            say(&format!("warning: {} is written as {format}, whatever its name says", output.display()));
        }
        match format.unwrap_or(by_name) {
            EncodeFormat::Npy if is_stdout(output) => {
                Err(Error::config("--format", "npy needs a file to go to; add --output FILE.npy"))
            }
            EncodeFormat::Npy => NpyWriter::create(output, dim).map(Sink::Npy),
            EncodeFormat::Jsonl => Output::open(output).map(Sink::Jsonl),
        }
    }

    fn write(&mut self, texts: &[String], ids: &[Map<String, Value>], embeddings: &Embeddings) -> Result<()> {
        match self {
            Sink::Npy(writer) => writer.write_rows(embeddings.values()),
            Sink::Jsonl(output) => output.write(|out| write_jsonl(out, texts, ids, embeddings)),
            Sink::Nowhere => Ok(()),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Sink::Npy(writer) => writer.finish(),
            Sink::Jsonl(output) => output.finish(),
            Sink::Nowhere => Ok(()),
        }
    }
}

/// Whether the file's name says what is in it.
fn is_called_otherwise(output: &Path) -> bool {
    output.extension().is_some_and(|e| e == "npy" || e == "jsonl" || e == "ndjson" || e == "json")
}

fn write_jsonl(
    out: &mut dyn Write,
    texts: &[String],
    ids: &[Map<String, Value>],
    embeddings: &Embeddings,
) -> io::Result<()> {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        #[serde(flatten)]
        ids: Option<&'a Map<String, Value>>,
        text: &'a str,
        embedding: &'a [f32],
    }
    let mut ids = ids.iter();
    for (text, embedding) in texts.iter().zip(embeddings.values().chunks_exact(embeddings.dim())) {
        serde_json::to_writer(&mut *out, &Line { ids: ids.next(), text, embedding })?;
        out.write_all(b"\n")?;
    }
    Ok(())
}
