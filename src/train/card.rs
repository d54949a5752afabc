//! What a run says about the models that it saves.

use super::Trainer;
use crate::backend::Backend;
use crate::data::catalog::TextSource;
use crate::data::sampler::BatchMode;
use crate::eval::EvalReport;
use crate::model::ModelCard;

impl<B: Backend> Trainer<'_, B> {
    /// The model card, with the figures of the model being saved.
    pub(super) fn card(&self, report: &EvalReport) -> ModelCard {
        let mut rows = String::from("| | before | now |\n|---|---|---|\n");
        for figure in &report.figures {
            let cell = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.4}"));
            let before = self.state.before.as_ref().and_then(|before| before.value(figure.key));
            rows += &format!("| {} | {} | {} |\n", figure.key, cell(before), cell(figure.value));
        }
        let (task, split) = (&report.task, &report.split);
        self.card_text(format!("\nMeasured on {task} ({split}), {} languages:\n\n{rows}", report.languages.len()))
    }

    /// The card of a model with these figures, in words.
    pub(super) fn card_text(&self, measured: String) -> ModelCard {
        let c = self.setup.config;
        let languages = self.setup.data.catalog().languages.clone();
        let training = format!(
            "Trained for {} of {} steps of {} queries with in-batch negatives (InfoNCE, temperature {}), AdamW at a \
             learning rate of {}, {} batches{}, seed {}.\n{measured}",
            self.state.step,
            self.state.total_steps,
            c.batch_size,
            c.temperature,
            c.learning_rate,
            c.mode,
            if c.mode == BatchMode::Hybrid { format!(" (alpha {})", c.alpha) } else { String::new() },
            c.seed,
        );
        // Only a hub id means something to whoever reads the card.
        let is_hub_id =
            c.model.as_deref().is_some_and(|m| m.split('/').count() == 2 && !std::path::Path::new(m).exists());
        ModelCard { base_model: c.model.clone().filter(|_| is_hub_id), languages, training }
    }
}
