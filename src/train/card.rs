//! What a run says about the models that it saves.

use super::Trainer;
use super::leaks::Leaks;
use super::state::TrainingState;
use crate::backend::Backend;
use crate::data::catalog::TextSource;
use crate::data::sampler::BatchMode;
use crate::eval::EvalReport;
use crate::model_dir::ModelCard;

impl<B: Backend> Trainer<'_, B> {
    /// The model card, with the figures of the latest evaluations, if there are any.
    pub(super) fn card(&self) -> ModelCard {
        let TrainingState { before, latest, others, .. } = &self.state;
        let deciding = latest.as_ref().map(|(_, report)| (before.as_ref(), report));
        let others = others.iter().filter_map(|of| Some((of.before.as_ref(), of.latest.as_ref()?)));
        let all = deciding.into_iter().chain(others).enumerate();
        self.card_text(all.map(|(number, (before, now))| self.measured(number, before, now)).collect())
    }

    /// A table of what an evaluation has found.
    fn measured(&self, number: usize, before: Option<&EvalReport>, now: &EvalReport) -> String {
        let mut rows = String::from("| | before | now |\n|---|---|---|\n");
        for figure in &now.figures {
            let cell = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.4}"));
            let before = before.and_then(|before| before.value(figure.key));
            rows += &format!("| {} | {} | {} |\n", figure.key, cell(before), cell(figure.value));
        }
        let (task, split) = (&now.task, &now.split);
        let leak = self.leaks.get(number).and_then(Leaks::in_words);
        let leak = leak.map_or(String::new(), |leak| format!("\nOf this data, {leak}.\n"));
        let name = self.setup.name_among_several(number).map_or(String::new(), |name| format!("{name}: "));
        format!("\nMeasured on {name}{task} ({split}), {} languages:\n\n{rows}{leak}", now.languages.len())
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
        let training = format!(
            "Trained for {} of {} steps of {} queries{by_contrast}{by_teacher}, AdamW at a \
             learning rate of {}, {} batches{}, seed {}.\n{measured}",
            self.state.step,
            self.state.total_steps,
            sampler.batch_size,
            settings.learning_rate,
            sampler.mode,
            if sampler.mode == BatchMode::Hybrid { format!(" (alpha {})", sampler.alpha) } else { String::new() },
            sampler.seed,
        );
        ModelCard { base_model: self.setup.base_model.clone(), languages, training }
    }
}
