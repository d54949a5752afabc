//! Public health: questions that people ask health authorities, and the answers; one table a language.
//!
//! As in mteb's PublicHealthQA answers with one text are one document, `D0`, `D1`, ..., and questions with one text are one
//! query, `Q0`, `Q1`, ..., in the order of the rows. A row without question or answer is left out, but what it has takes part
//! in the numbering.

use std::collections::HashMap;
use std::sync::Arc;

use super::cell::{Cell, Column, Parsed, needed};
use super::documents::{Corpus, strip};
use super::{Collection, Document, JudgedQuery, Tables};
use crate::data::formats::{Note, Notes};
use crate::error::counted;
use crate::{Error, Result};

const COLUMNS: [Column; 2] = [needed(&["question"]), needed(&["answer"])];

/// The task in a table, of which the [place](Tables::place) is given, as the subset and the split that are to be called so.
///
/// # Errors
/// No such table; a file that cannot be read or lacks a column; no row with question and answer.
pub fn public_health(tables: &Tables, [folder, file]: [&str; 2], subset: &str, split: &str) -> Result<Collection> {
    let mut found = Found::default();
    tables.each_row(folder, file, &COLUMNS, usize::MAX, |cells| found.add(cells))?;
    let Found { n_rows, n_incomplete, queries, documents, .. } = found;
    if queries.is_empty() {
        let message = format!("subset {subset}: none of its {} has question and answer", counted(n_rows as u64, "row"));
        return Err(Error::file(tables.root(), message));
    }
    let mut notes = Notes::default();
    if n_incomplete > 0 {
        let rows = counted(n_incomplete, "row");
        notes.add(Note::Part(format!("{rows} of subset {subset} left out: no question or no answer")), 1);
    }
    Ok(Collection {
        subset: subset.to_owned(),
        split: split.to_owned(),
        queries,
        n_query_rows: n_rows,
        changes: None,
        notes,
        corpus: Corpus::Held(Arc::new(documents)),
    })
}

/// What the rows so far hold.
#[derive(Default)]
struct Found {
    n_rows: usize,
    n_incomplete: u64,
    /// Number and place of each question among the queries, if it has an answer; of each answer among the documents.
    questions: HashMap<String, (usize, Option<usize>)>,
    answers: HashMap<String, (usize, Option<usize>)>,
    queries: Vec<JudgedQuery>,
    documents: Vec<Document>,
}

impl Found {
    fn add(&mut self, cells: Vec<Cell>) -> Parsed<()> {
        let row = self.n_rows;
        self.n_rows += 1;
        let [question, answer]: [Cell; 2] = cells.try_into().map_err(|_| "not two cells".to_owned())?;
        let (question, answer) = (text(question, "question")?, text(answer, "answer")?);
        let of_question = question.as_ref().map(|text| entry(&mut self.questions, text));
        let of_answer = answer.as_ref().map(|text| entry(&mut self.answers, text));
        let (Some(question), Some(answer), Some(query), Some(document)) = (&question, &answer, of_question, of_answer)
        else {
            self.n_incomplete += 1;
            return Ok(());
        };
        let document_id = format!("D{}", document.0);
        if document.1.is_none() {
            document.1 = Some(self.documents.len());
            self.documents.push(Document { id: document_id.clone(), text: strip(answer).to_owned() });
        }
        let place = *query.1.get_or_insert(self.queries.len());
        if place == self.queries.len() {
            let (id, text) = (format!("Q{}", query.0), question.clone());
            self.queries.push(JudgedQuery { row, id, text, judgements: Vec::new(), candidates: None });
        }
        let judgement = (document_id, 1);
        if !self.queries[place].judgements.contains(&judgement) {
            self.queries[place].judgements.push(judgement);
        }
        Ok(())
    }
}

/// A text's number, the next one if it is new.
fn entry<'a>(numbers: &'a mut HashMap<String, (usize, Option<usize>)>, text: &str) -> &'a mut (usize, Option<usize>) {
    let next = numbers.len();
    numbers.entry(text.to_owned()).or_insert((next, None))
}

fn text(cell: Cell, name: &str) -> Parsed<Option<String>> {
    match cell {
        Cell::Null => Ok(None),
        cell => cell.into_text(name).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn load(text: &str) -> Result<Collection> {
        let dir = TempDir::new().unwrap();
        fs::create_dir_all(dir.path().join("data")).unwrap();
        fs::write(dir.path().join("data/french.csv"), text).unwrap();
        let tables = Tables::open(dir.path())?;
        let (folder, file) = tables.place("french", "test").unwrap();
        public_health(&tables, [folder, file], "french", "test")
    }

    #[test]
    fn queries_and_documents_are_those_of_mteb() {
        let rows = "id,question,answer,source\n\
                    0,\" a, \"\"b\"\"?\n\",A ,x\n\
                    1,c?,,x\n\
                    2,NA,B,x\n\
                    3,c?,C,\n\
                    4,c?,A ,x\n\
                    5,c?,C,x\n\
                    6,none,B,x\n";
        let task = load(rows).unwrap();
        let query = |row, id: &str, text: &str, documents: &[&str]| JudgedQuery {
            row,
            id: id.to_owned(),
            text: text.to_owned(),
            judgements: documents.iter().map(|id| ((*id).to_owned(), 1)).collect(),
            candidates: None,
        };
        let expected = [
            query(0, "Q0", " a, \"b\"?\n", &["D0"]),
            query(3, "Q1", "c?", &["D2", "D0"]),
            // What pandas takes for nothing is written so and not otherwise.
            query(6, "Q2", "none", &["D1"]),
        ];
        assert_eq!((task.queries, task.n_query_rows), (expected.into(), 7));
        let documents: Vec<Document> = match task.corpus {
            Corpus::Held(documents) => documents.to_vec(),
            Corpus::Files(_) => Vec::new(),
        };
        let document = |id: &str, text: &str| Document { id: id.to_owned(), text: text.to_owned() };
        assert_eq!(documents, [document("D0", "A"), document("D2", "C"), document("D1", "B")]);
        assert_eq!(task.notes.lines(), ["2 rows of subset french left out: no question or no answer"]);
        assert_eq!((&*task.subset, &*task.split), ("french", "test"));
    }

    #[test]
    fn tables_that_cannot_be_read() {
        for (rows, expected) in [
            ("question,source\na,b\n", "french.csv, line 1: no answer; there is question, source"),
            ("", "french.csv, line 1: no question; there is nothing"),
            ("question,answer\na,b,c\n", "french.csv, line 2: 3 columns, where the first line has 2"),
            ("question,answer\na,b\nc,\"d\ne,f\n", "french.csv, line 3: a quote that opens in this row is not closed"),
            ("question,answer\na,NULL\n", "subset french: none of its 1 row has question and answer"),
        ] {
            let error = load(rows).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
