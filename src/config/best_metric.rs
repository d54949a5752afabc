//! The key `best_metric`: a figure, of the first evaluation or of one that is named.

use std::fmt;

use toml::Value as Toml;

use super::choices::FigureKey;
use super::value::{Bounds, KeyType};

/// The figure that picks the best model.
#[derive(Clone, Debug, PartialEq)]
pub struct BestMetric {
    /// Name of the evaluation that it is of; none: the first
    pub evaluation: Option<String>,
    /// What is measured
    pub figure: FigureKey,
}

/// As it is set: `multilingual_map`, `mlqa-r.multilingual_map`.
impl fmt::Display for BestMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.evaluation {
            write!(f, "{name}.")?;
        }
        self.figure.fmt(f)
    }
}

impl KeyType for BestMetric {
    fn expects(bounds: &Bounds) -> String {
        format!("{}, of one evaluation among several as NAME.FIGURE", FigureKey::expects(bounds))
    }
    fn choices() -> Vec<String> {
        FigureKey::choices()
    }
    fn read(value: &Toml, bounds: &Bounds) -> Option<Self> {
        // Names may have dots; figures have none.
        let (evaluation, figure) = match value.as_str()?.rsplit_once('.') {
            Some((name, figure)) if !name.is_empty() => (Some(name.to_owned()), figure),
            Some(_) => return None,
            None => (None, value.as_str()?),
        };
        FigureKey::read(&Toml::from(figure), bounds).map(|figure| BestMetric { evaluation, figure })
    }
    fn write(&self) -> String {
        Toml::from(self.to_string()).to_string()
    }
}
