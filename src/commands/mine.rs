//! `hbt mine`

use super::data::{datasets, say_notes};
use super::device::{Job, on_device};
use super::gpus::asked_for;
use super::inputs::Inputs;
use super::model::{kernels_of, model_dir};
use super::output::{Kind, Output, is_stdout, refuse_foreign, refuse_other_name};
use super::ranks;
use super::setup::finish;
use hbt::backend::Backend;
use hbt::backend::cuda::Kernels;
use hbt::cli::MineArgs;
use hbt::config::{Config, Draft};
use hbt::mine::{Corpus, Input, Mined, Rules, mine};
use hbt::model_dir::ModelDir;
use hbt::progress::{Counter, say};
use hbt::retriever::{Retriever, RetrieverSettings};
use hbt::train::Ranks;
use hbt::{Error, Result};

/// Mines, writes the data with its negatives, and prints a summary.
pub fn run(args: MineArgs) -> Result<()> {
    // Read once: a configuration may come through a pipe.
    let draft = args.draft();
    ranks::run(asked_for(&draft), |ranks| mine_among(&args, draft?, ranks))
}

fn mine_among(args: &MineArgs, draft: Draft, ranks: &Ranks) -> Result<()> {
    let config = finish(draft)?;
    let rules = rules(args, config.seed);
    rules.check()?;
    let inputs = Inputs::of(&config, args.config.config.as_deref());
    inputs.refuse_trace(&args.trace)?;
    // Checked now, not after an hour of work.
    if ranks.leads() {
        Output::check(&args.output)?;
        inputs.refuse("--output", &args.output)?;
        refuse_other_name("--output", &args.output)?;
        if !args.overwrite {
            refuse_foreign("--output", &args.output, Kind::Rows)?;
        }
    }
    let datasets = ranks::first_of_machine(ranks, || datasets(&config))?;
    let [dataset] = &datasets[..] else {
        let message =
            format!("there are {}; mine each by itself, with --data and an --output of its own", datasets.len());
        return Err(Error::config("datasets", message));
    };
    let mut input = Input::open(&config.data_source(dataset))?;
    let corpus = input.corpus()?;
    say_notes(input.notes());
    let dir = ranks::first_of_machine(ranks, || model_dir(&config))?;
    let settings = config.retriever(&dir)?;
    let mined = on_device(&config, MineJob { dir, settings, config: &config, ranks, corpus: &corpus, rules: &rules })?;
    if !ranks.leads() {
        return Ok(());
    }
    let mut output = Output::open(&args.output)?;
    input.write(&corpus, &mined, &rules, &mut |row| output.write(|out| writeln!(out, "{row}")))?;
    output.finish()?;
    if is_stdout(&args.output) {
        say(mined.report.to_string().trim_end());
        return Ok(());
    }
    crate::print(&mined.report.to_string())
}

/// The rules that the options give.
fn rules(args: &MineArgs, seed: u64) -> Rules {
    Rules {
        num_negatives: args.num_negatives as usize,
        range_min: args.range_min as usize,
        range_max: args.range_max as usize,
        relative_margin: args.relative_margin.0,
        absolute_margin: args.absolute_margin.0,
        max_score: args.max_score.0,
        min_score: args.min_score.0,
        languages: args.languages.clone(),
        sampling_strategy: args.sampling_strategy,
        seed,
        replace: args.replace_negatives,
    }
}

struct MineJob<'a> {
    dir: ModelDir,
    settings: RetrieverSettings,
    config: &'a Config,
    ranks: &'a Ranks,
    corpus: &'a Corpus,
    rules: &'a Rules,
}

impl Job for MineJob<'_> {
    type Output = Mined;

    fn kernels(&self) -> Result<Kernels> {
        Ok(kernels_of(&self.dir, false))
    }

    fn ranks(&self) -> Ranks {
        self.ranks.clone()
    }

    fn run<B: Backend>(self, backend: B) -> Result<Mined> {
        let retriever = Retriever::load(backend, self.dir, self.settings)?;
        ranks::require_same_model(self.ranks, self.config, &retriever)?;
        let (n_rows, n_passages) = (self.corpus.rows.len(), self.corpus.passages.len());
        let counter = Counter::new("mined", 0);
        let progress = &mut |done, total| counter.set(done as u64, total as u64);
        let mined = mine(&retriever, self.ranks.peers(), self.corpus, self.rules, progress)?;
        counter.finish(&format!("{n_passages} passages for {n_rows} rows"));
        Ok(mined)
    }
}
