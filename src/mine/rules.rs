//! Rules for the passages that are mined.

use std::str::FromStr;

use crate::data::formats::language;
use crate::{Error, Result};

/// Rules by which passages that do not hold the answer become negatives. The [module](super) says how they work
/// together.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Negatives to find for a row: in each language of its positives with [`Languages::Same`], else in all.
    pub num_negatives: usize,
    /// Best rank that may be mined; rank 1 is the best passage that does not hold the answer.
    pub range_min: usize,
    /// The worst rank that may be mined.
    pub range_max: usize,
    /// A negative's score is at most `positive - relative_margin |positive|`, which is `positive (1 - relative_margin)`
    /// for positive scores (TopK-PercPos of NV-Retriever, arXiv 2407.15831). `None` means no such limit.
    pub relative_margin: Option<f32>,
    /// A negative's score is at most `positive - absolute_margin`.
    pub absolute_margin: Option<f32>,
    /// A negative's score is at most this.
    pub max_score: Option<f32>,
    /// A negative's score is at least this.
    pub min_score: Option<f32>,
    /// Languages in which negatives are searched.
    pub languages: Languages,
    /// Choice among the passages that qualify.
    pub sampling_strategy: Sampling,
    /// Seed of [`Sampling::Random`].
    pub seed: u64,
    /// Whether mined negatives replace those that a row has; otherwise they are added.
    pub replace: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            num_negatives: 7,
            range_min: 10,
            range_max: 100,
            relative_margin: Some(0.05),
            absolute_margin: None,
            max_score: None,
            min_score: None,
            languages: Languages::Same,
            sampling_strategy: Sampling::Top,
            seed: 42,
            replace: false,
        }
    }
}

impl Rules {
    /// Checks that the rules can be satisfied.
    ///
    /// # Errors
    /// If nothing can satisfy them; the message names the option.
    pub fn check(&self) -> Result<()> {
        let Rules { range_min, range_max, .. } = *self;
        if range_min == 0 {
            return Err(Error::config("--range-min", "ranks begin at 1"));
        }
        if range_min > range_max {
            let message = format!("{range_min} is behind --range-max {range_max}, so there is no rank between them");
            return Err(Error::config("--range-min", message));
        }
        let thresholds = [
            ("--relative-margin", self.relative_margin),
            ("--absolute-margin", self.absolute_margin),
            ("--max-score", self.max_score),
            ("--min-score", self.min_score),
        ];
        for (option, value) in thresholds {
            if value.is_some_and(|value| !value.is_finite()) {
                return Err(Error::config(option, "has to be a finite number"));
            }
        }
        match (self.min_score, self.max_score) {
            (Some(min), Some(max)) if min > max => {
                Err(Error::config("--min-score", format!("{min} is above --max-score {max}; no score is between them")))
            }
            _ => Ok(()),
        }
    }
}

/// Languages in which a row's negatives are searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Languages {
    /// Each language that the row has a positive in, ranked separately.
    Same,
    /// All languages, ranked together.
    All,
    /// These languages, ranked together.
    Only(Vec<String>),
}

impl FromStr for Languages {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "same" => Ok(Languages::Same),
            "all" => Ok(Languages::All),
            list => {
                let languages: std::result::Result<_, _> = list.split(',').map(|lang| language(lang.trim())).collect();
                languages.map(Languages::Only)
            }
        }
    }
}

crate::choices::choices! {
    /// Choice among the passages that qualify.
    Sampling {
        /// The passages with the highest scores.
        Top = "top",
        /// Random passages, drawn by the seed.
        Random = "random",
    }
}
