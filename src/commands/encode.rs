//! `hbt encode`

use super::device::{Job, on_device};
use super::inputs::Inputs;
use super::model::{kernels_of, model_dir};
use super::output::{Output, is_stdout};
use super::setup::finish;
use hbt::backend::Backend;
use hbt::backend::cuda::Kernels;
use hbt::cli::{EncodeArgs, EncodeAs, EncodeFormat};
use hbt::data::formats::parse_object;
use hbt::model_dir::ModelDir;
use hbt::npy::NpyWriter;
use hbt::progress::Counter;
use hbt::retriever::{Embeddings, Retriever, RetrieverSettings};
use hbt::{Error, Result};
use std::io::{self, BufRead, Write};
use std::path::Path;

/// Embeds the input's texts and writes them in their order.
pub fn run(args: EncodeArgs) -> Result<()> {
    let config = finish(args.draft()?)?;
    let mut inputs = Inputs::of(&config, args.config.config.as_deref());
    inputs.add("the input", Some(&args.input));
    inputs.refuse_trace(&args.trace)?;
    inputs.refuse("--output", &args.output)?;
    let texts = read_texts(&args.input)?;
    let dir = model_dir(&config)?;
    let settings = config.retriever(&dir)?;
    on_device(&config, EncodeJob { dir, settings, args: &args, texts })
}

struct EncodeJob<'a> {
    dir: ModelDir,
    settings: RetrieverSettings,
    args: &'a EncodeArgs,
    texts: Vec<String>,
}

impl Job for EncodeJob<'_> {
    type Output = ();

    fn kernels(&self) -> Result<Kernels> {
        Ok(kernels_of(&self.dir, false))
    }

    fn run<B: Backend>(self, backend: B) -> Result<()> {
        let retriever = Retriever::load(backend, self.dir, self.settings)?;
        let kind = match self.args.encode_as {
            EncodeAs::Query => &retriever.settings.query,
            EncodeAs::Passage => &retriever.settings.passage,
        };
        let mut sink = Sink::open(&self.args.output, self.args.format, retriever.embedding_size())?;
        let total = self.texts.len() as u64;
        let counter = Counter::new("embedded", total);
        let mut rest = &self.texts[..];
        retriever.encode_windows(kind, &self.texts, &mut |n| counter.set(n as u64, total), &mut |embeddings| {
            let (texts, later) = rest.split_at(embeddings.n_rows());
            rest = later;
            sink.write(texts, &embeddings)
        })?;
        sink.finish()?;
        counter.finish(&format!("{total} texts"));
        Ok(())
    }
}

/// Destination of the embeddings.
enum Sink {
    Npy(NpyWriter),
    Jsonl(Output),
}

impl Sink {
    fn open(output: &Path, format: Option<EncodeFormat>, dim: usize) -> Result<Self> {
        let by_name =
            if output.extension().is_some_and(|e| e == "npy") { EncodeFormat::Npy } else { EncodeFormat::Jsonl };
        match format.unwrap_or(by_name) {
            EncodeFormat::Npy if is_stdout(output) => {
                Err(Error::config("--format", "npy needs a file to go to; add --output FILE.npy"))
            }
            EncodeFormat::Npy => NpyWriter::create(output, dim).map(Sink::Npy),
            EncodeFormat::Jsonl => Output::open(output).map(Sink::Jsonl),
        }
    }

    fn write(&mut self, texts: &[String], embeddings: &Embeddings) -> Result<()> {
        match self {
            Sink::Npy(writer) => writer.write_rows(embeddings.values()),
            Sink::Jsonl(output) => output.write(|out| write_jsonl(out, texts, embeddings)),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Sink::Npy(writer) => writer.finish(),
            Sink::Jsonl(output) => output.finish(),
        }
    }
}

fn write_jsonl(out: &mut dyn Write, texts: &[String], embeddings: &Embeddings) -> io::Result<()> {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        text: &'a str,
        embedding: &'a [f32],
    }
    for (text, embedding) in texts.iter().zip(embeddings.values().chunks_exact(embeddings.dim())) {
        serde_json::to_writer(&mut *out, &Line { text, embedding })?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// One text a line, or, if the file is called .jsonl or begins with a brace, the field "text" of one JSON object a
/// line. An empty line is an empty text, but is skipped among JSON objects.
fn read_texts(path: &Path) -> Result<Vec<String>> {
    let is_stdin = path == Path::new("-");
    let path = if is_stdin { Path::new("standard input") } else { path };
    let bytes = if is_stdin {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::stdin().lock(), &mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    let bytes = bytes.map_err(|e| Error::io("read", path, e))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let is_jsonl = path.extension().is_some_and(|e| e == "jsonl") || bytes.first() == Some(&b'{');
    let mut texts = Vec::new();
    for (line, number) in bytes.lines().zip(1..) {
        let line = line.map_err(|_| Error::line(path, number, "invalid UTF-8; save the file as UTF-8"))?;
        if !is_jsonl {
            texts.push(line);
        } else if !line.trim().is_empty() {
            texts.push(json_text(&line).map_err(|message| Error::line(path, number, message))?);
        }
    }
    Ok(texts)
}

/// The error is a message without file and line.
fn json_text(line: &str) -> std::result::Result<String, String> {
    let row = parse_object(line.as_bytes())?;
    match row.get("text").and_then(|text| text.as_str()) {
        Some(text) => Ok(text.to_owned()),
        None => Err("no text: expected a field \"text\" that holds a string".to_owned()),
    }
}
