//! What a run says about the models that it saves.

use super::Trainer;
use super::leaks::Leaks;
use super::state::TrainingState;
use crate::backend::Backend;
use crate::data::catalog::TextSource;
use crate::data::sampler::BatchMode;
use crate::eval::{EvalReport, FigureKey};
use crate::model_dir::{DataName, Evaluated, ModelCard};

impl<B: Backend> Trainer<'_, B> {
    /// The model card, with the figures of the latest evaluations, if there are any.
    pub(super) fn card(&self) -> ModelCard {
        let TrainingState { before, latest, others, .. } = &self.state;
        let deciding = latest.as_ref().map(|(_, report)| (before.as_ref(), report));
        let others = others.iter().filter_map(|of| Some((of.before.as_ref(), of.latest.as_ref()?)));
        let all = deciding.into_iter().chain(others).enumerate();
        let (measured, results) = all.map(|(number, (before, now))| self.measured(number, before, now)).unzip();
        ModelCard { results, ..self.card_text(measured) }
    }

    /// What an evaluation has found, as a table beside what it had found before, and for the card's head.
    fn measured(&self, number: usize, before: Option<&EvalReport>, now: &EvalReport) -> (String, Evaluated) {
        let figures = figures(now);
        let mut rows = String::from("| | before | now |\n|---|---|---|\n");
        for (shown, key, value) in &figures {
            let before = before.and_then(|before| before.value(*key));
            rows += &format!("| {shown} | {} | {} |\n", key.shown(before), key.shown(Some(*value)));
        }
        let languages = match now.languages.len() {
            0 | 1 => String::new(),
            n => format!(", {n} languages"),
        };
        let (task, split) = (&now.task, &now.split);
        let leak = self.leaks.get(number).and_then(Leaks::in_words);
        let leak = leak.map_or(String::new(), |leak| format!("\nOf this data, {leak}.\n"));
        let name = self.setup.name_among_several(number);
        let metrics = figures.iter().map(|(shown, _, value)| (shown.to_string(), shown.title(), *value)).collect();
        // Results of the same data and part are one to the hub, so each goes by the name that it alone has.
        let result = Evaluated { dataset: name.unwrap_or(task).to_owned(), split: split.clone(), metrics };
        let name = name.map_or(String::new(), |name| format!("{name}: "));
        (format!("\nMeasured on {name}{task} ({split}){languages}:\n\n{rows}{leak}"), result)
    }

    /// The card of a model with these figures, in words.
    fn card_text(&self, measured: String) -> ModelCard {
        let settings = &self.setup.settings;
        let sampler = &settings.sampler;
        let languages = self.setup.data.catalog().languages_in_use().into_iter().map(str::to_owned).collect();
        let (contrastive, teacher) = (settings.loss.weight, settings.loss.distillation);
        let by_contrast = match contrastive > 0.0 {
            true => format!(" with in-batch negatives (InfoNCE, temperature {})", settings.temperature),
            false => String::new(),
        };
        let by_teacher = teacher.map_or(String::new(), |of| {
            let and = if contrastive > 0.0 { " and" } else { "" };
            let weights = format!("weight {} to {contrastive}", of.weight);
            format!("{and} with a teacher's scores ({}, {weights})", of.kind)
        });
        let origin = self.setup.origin.clone();
        let data: Vec<String> = origin.data.iter().map(DataName::in_words).collect();
        let data = if data.is_empty() { String::new() } else { format!(" Training data: {}.", data.join(", ")) };
        let training = format!(
            "Trained for {} of {} steps of {} queries{by_contrast}{by_teacher}, AdamW at a \
             learning rate of {}, {} batches{}, seed {}.{data}\n{measured}",
            self.state.step,
            self.state.total_steps,
            sampler.batch_size,
            settings.learning_rate,
            sampler.mode,
            if sampler.mode == BatchMode::Hybrid { format!(" (alpha {})", sampler.alpha) } else { String::new() },
            sampler.seed,
        );
        ModelCard { origin, languages, results: Vec::new(), training }
    }
}

/// The figures that have a value: what a card calls each, its key in reports, and the value. In data of one language a query
/// searches the same passages in all settings, so there the settings are not named, and what they share is shown once.
fn figures(report: &EvalReport) -> Vec<(FigureKey, FigureKey, f64)> {
    let mut found: Vec<(FigureKey, FigureKey, f64)> = Vec::new();
    for figure in &report.figures {
        let setting = figure.key.setting.filter(|_| report.languages.len() > 1);
        let shown = FigureKey { setting, ..figure.key };
        let Some(value) = figure.value else { continue };
        if !found.iter().any(|(known, ..)| *known == shown) {
            found.push((shown, figure.key, value));
        }
    }
    found
}
