//! Which of a model's prompts mteb puts before the texts of a task.

use super::table::TaskRow;

/// The side of a text in a search. STS, bitext mining and pairs have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What is asked.
    Query,
    /// What is found.
    Document,
}

impl Side {
    /// How keys of prompts end.
    fn suffix(self) -> &'static str {
        match self {
            Side::Query => "query",
            Side::Document => "document",
        }
    }
}

/// The name of the prompt that mteb puts before a text of a task: the first that the model has (`has`) of `TASK-query`,
/// `TASK`, `Retrieval-query`, `Retrieval` and `query`, with the task's name and type, and without a side only `TASK` and
/// `Retrieval`. A model directory's `passage` is none of them.
///
/// `None` leaves the choice to sentence-transformers: its own prompt of the side, or its default one.
pub fn prompt_name(task: &TaskRow, side: Option<Side>, has: impl Fn(&str) -> bool) -> Option<String> {
    let of_side = |name: &str| side.map(|side| format!("{name}-{}", side.suffix()));
    let kind = task.kind.to_string();
    let names =
        [of_side(&task.name), Some(task.name.clone()), of_side(&kind), Some(kind), side.map(|s| s.suffix().to_owned())];
    names.into_iter().flatten().find(|name| has(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::mteb::table::task;

    /// What `get_prompt_name` of mteb 2.26.24 says for queries, documents and texts without a side (`-`: none).
    const OF_MTEB: [(&str, &str, [&str; 3]); 11] = [
        (
            "ArguAna",
            "ArguAna-query ArguAna Retrieval-query Retrieval query document passage",
            ["ArguAna-query", "ArguAna", "ArguAna"],
        ),
        ("ArguAna", "ArguAna Retrieval-query query", ["ArguAna", "ArguAna", "ArguAna"]),
        ("ArguAna", "Retrieval Retrieval-query query document", ["Retrieval-query", "Retrieval", "Retrieval"]),
        ("ArguAna", "Retrieval document", ["Retrieval", "Retrieval", "Retrieval"]),
        ("ArguAna", "query passage", ["query", "-", "-"]),
        ("ArguAna", "SCIDOCS STS", ["-", "-", "-"]),
        ("STS17", "query document STS", ["STS", "STS", "STS"]),
        ("STS17", "STS17-query query", ["STS17-query", "-", "-"]),
        ("STS17", "STS17 STS", ["STS17", "STS17", "STS17"]),
        (
            "Core17InstructionRetrieval",
            "Retrieval InstructionReranking-document query",
            ["query", "InstructionReranking-document", "-"],
        ),
        ("Tatoeba", "BitextMining query", ["BitextMining", "BitextMining", "BitextMining"]),
    ];

    #[test]
    fn prompts_are_found_in_the_order_of_mteb() {
        for (name, prompts, expected) in OF_MTEB {
            let sides = [Some(Side::Query), Some(Side::Document), None];
            for (side, expected) in sides.into_iter().zip(expected) {
                let found =
                    prompt_name(task(name).unwrap(), side, |key| prompts.split(' ').any(|prompt| prompt == key));
                assert_eq!(found.as_deref().unwrap_or("-"), expected, "{name}, {prompts}, {side:?}");
            }
        }
    }
}
