//! The prompts that a model directory has, as sentence-transformers keeps them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::Result;
use crate::json::{Fields, read_optional_object};

/// Texts that are put before others, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompts {
    texts: BTreeMap<String, String>,
    /// The name of the one that is meant where none is named.
    default: Option<String>,
}

impl Prompts {
    /// Reads `config_sentence_transformers.json`, if there is one.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let path = &directory.join("config_sentence_transformers.json");
        let Some(map) = read_optional_object(path)? else { return Ok(Prompts::default()) };
        let fields = Fields::new(path, &map);
        let prompts = match fields.get("prompts") {
            None => return Ok(Prompts::default()),
            Some(Value::Object(prompts)) => prompts,
            Some(_) => return Err(fields.error("prompts has to be an object of strings")),
        };
        let of_prompts = Fields::new(path, prompts);
        let mut texts = BTreeMap::new();
        for name in prompts.keys() {
            texts.extend(of_prompts.string(name)?.map(|text| (name.clone(), text.to_owned())));
        }
        Ok(Prompts { texts, default: fields.string("default_prompt_name")?.map(str::to_owned) })
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Option<&String> {
        self.texts.get(name)
    }

    /// The one that is meant where none is named.
    pub fn usual(&self) -> Option<&String> {
        self.get(self.default.as_ref()?)
    }

    /// The first of these that is there, else the default.
    pub(super) fn first(&self, names: &[&str]) -> Option<&String> {
        names.iter().find_map(|name| self.get(name)).or_else(|| self.usual())
    }
}
