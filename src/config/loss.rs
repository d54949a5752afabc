//! Checks of the keys of the loss against one another.

use super::Config;
use crate::{Error, Result};

impl Config {
    /// Refuses combinations without a meaning.
    pub(super) fn check_loss(&self) -> Result<()> {
        if self.passage_negatives && !self.symmetric {
            let message = "has no effect where passages do not look for their queries; set symmetric = true as well";
            return Err(Error::config("passage_negatives", message));
        }
        for (key, is_set) in [("symmetric", self.symmetric), ("query_negatives", self.query_negatives)] {
            if is_set && !self.in_batch_negatives {
                let message = format!("makes negatives of other queries' positives or queries; take {key} away");
                return Err(Error::config("in_batch_negatives", format!("is false, but {key} {message}")));
            }
        }
        if !self.in_batch_negatives && self.negatives_per_query == Some(0) {
            let message = "is 0 and in_batch_negatives is false, so a query has no negative at all; set one of the two";
            return Err(Error::config("negatives_per_query", message));
        }
        self.check_distillation()?;
        let Some(dims) = &self.matryoshka_dims else {
            return match &self.matryoshka_weights {
                Some(_) => Err(Error::config("matryoshka_weights", "belongs to matryoshka_dims, which is not set")),
                None => Ok(()),
            };
        };
        let mut sorted = dims.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if dims.is_empty() || sorted.len() < dims.len() {
            return Err(Error::config(
                "matryoshka_dims",
                "must be a list of different numbers, such as [384, 128, 64]",
            ));
        }
        let n_weights = self.matryoshka_weights.as_ref().map_or(dims.len(), Vec::len);
        if n_weights != dims.len() {
            let message = format!("has {n_weights} weights for {} numbers of dimensions; give one each", dims.len());
            return Err(Error::config("matryoshka_weights", message));
        }
        Ok(())
    }

    fn check_distillation(&self) -> Result<()> {
        let defaults = Config::default();
        if self.distillation.is_none() {
            let given = [
                ("distillation_weight", self.distillation_weight != defaults.distillation_weight),
                ("distillation_temperature", self.distillation_temperature.is_some()),
                ("teacher_temperature", self.teacher_temperature != defaults.teacher_temperature),
                ("contrastive_weight", self.contrastive_weight != defaults.contrastive_weight),
            ];
            return match given.into_iter().find(|(_, is_given)| *is_given) {
                Some((key, _)) => {
                    Err(Error::config(key, "belongs to distillation, which is none; set it to kl or margin_mse"))
                }
                None => Ok(()),
            };
        }
        if self.negatives_per_query == Some(0) {
            let message = "is 0, but distillation compares a query's negatives with its positive; raise it";
            return Err(Error::config("negatives_per_query", message));
        }
        if self.contrastive_weight > 0.0 {
            return Ok(());
        }
        let of_contrast = [
            ("symmetric", self.symmetric),
            ("margin", self.margin != defaults.margin),
            ("in_batch_negatives", !self.in_batch_negatives),
            ("query_negatives", self.query_negatives),
            ("false_negative_margin", self.false_negative_margin.is_some()),
            ("teacher_margin", self.teacher_margin.is_some()),
            (
                "temperature_learning_rate",
                self.temperature_learning_rate.is_some() && self.distillation_temperature.is_some(),
            ),
        ];
        match of_contrast.into_iter().find(|(_, is_given)| *is_given) {
            Some((key, _)) => {
                let message = "has no effect where distillation stands alone (contrastive_weight = 0); take it away";
                Err(Error::config(key, message))
            }
            None => Ok(()),
        }
    }
}
