//! RoBERTa and XLM-RoBERTa (Conneau et al., arXiv 1911.02116): BERT's network, whose positions start behind the padding's.

use super::{Family, bert};
use crate::Result;
use crate::json::Fields;
use crate::model::ModelConfig;

pub static XLM_ROBERTA: Family =
    Family { model_type: "xlm-roberta", class: "XLMRobertaModel", names: bert::NAMES, describe };

pub static ROBERTA: Family = Family { model_type: "roberta", class: "RobertaModel", names: bert::NAMES, describe };

fn describe(family: &'static Family, fields: &Fields) -> Result<ModelConfig> {
    let pad_token_id = fields.integer("pad_token_id")?.unwrap_or(1);
    let config = bert::network(family, fields, pad_token_id, pad_token_id + 1)?;
    let (positions, first) = (config.max_position_embeddings, config.position_offset);
    if positions <= first {
        return Err(fields.error(format!(
            "max_position_embeddings {positions} leaves no position for a token: the first one is pad_token_id + 1 = {first}"
        )));
    }
    Ok(config)
}
