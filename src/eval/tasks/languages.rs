//! A benchmark in some of its languages.

use super::{EvalSet, Passage, Query, Relevant};
use crate::data::catalog::LangId;

impl EvalSet {
    /// The queries and passages in these languages. A query that has its answers in other ones alone goes with them.
    ///
    /// # Errors
    /// What is wrong: a language that the set does not have, or no query that is left.
    pub fn only(self, languages: &[String]) -> Result<Self, String> {
        if let Some(unknown) = languages.iter().find(|code| !self.languages.contains(code)) {
            return Err(format!("there is no {unknown:?}; the data has {}", self.languages.join(", ")));
        }
        let kept: Vec<String> = self.languages.iter().filter(|code| languages.contains(code)).cloned().collect();
        let new_lang = |lang: LangId| {
            let at = kept.iter().position(|code| *code == self.languages[usize::from(lang)]);
            at.map(|at| at as LangId)
        };
        let (mut passages, mut numbers) = (Vec::new(), Vec::new());
        for Passage { lang, text } in self.passages {
            numbers.push(new_lang(lang).map(|lang| {
                passages.push(Passage { lang, text });
                passages.len() as u32 - 1
            }));
        }
        let still_relevant =
            |of: Relevant| numbers[of.passage as usize].map(|passage| Relevant { passage, grade: of.grade });
        let queries = self.queries.into_iter().filter_map(|query| {
            let lang = new_lang(query.lang)?;
            let relevant: Vec<Relevant> = query.relevant.iter().copied().filter_map(still_relevant).collect();
            let left_out = query.left_out.and_then(|passage| numbers[passage as usize]);
            let is_asked = !relevant.is_empty() || !query.out_of_reach.is_empty();
            is_asked.then_some(Query { lang, relevant, left_out, ..query })
        });
        let queries: Vec<Query> = queries.collect();
        if queries.is_empty() {
            return Err(format!("no question is left that has an answer in {}", kept.join(", ")));
        }
        let EvalSet { task, split, notes, .. } = self;
        Ok(EvalSet { task, split, notes, languages: kept, passages, queries })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Query, parallel};
    use crate::data::formats::{Group, Split, Text};
    use crate::eval::tasks::EvalSet;

    /// Two questions: the first in German, English and French with an answer in each, the second with an answer in French.
    fn set() -> EvalSet {
        let texts = |codes: &[&str], what: &str| {
            codes.iter().map(|code| Text::new(*code, format!("{what} {code}"))).collect::<Vec<_>>()
        };
        let group = |id: &str, queries: &[&str], positives: &[&str]| Group {
            id: id.to_owned(),
            queries: texts(queries, &format!("question {id}")),
            positives: texts(positives, &format!("answer {id}")),
            ..Group::default()
        };
        let groups = [group("1", &["de", "en", "fr"], &["de", "en", "fr"]), group("2", &["de", "en"], &["fr"])];
        parallel::from_groups(&groups, Split::All)
    }

    #[test]
    fn other_languages_are_left_out() {
        let of = |query: &Query, set: &EvalSet| -> Vec<String> {
            query.relevant.iter().map(|of| set.passages[of.passage as usize].text.clone()).collect()
        };
        let two = set().only(&["fr".to_owned(), "de".to_owned()]).unwrap();
        assert_eq!(two.languages, ["de", "fr"]);
        let passages: Vec<_> = two.passages.iter().map(|passage| (passage.lang, passage.text.as_str())).collect();
        assert_eq!(passages, [(0, "answer 1 de"), (1, "answer 1 fr"), (1, "answer 2 fr")]);
        let queries: Vec<_> = two.queries.iter().map(|query| (query.lang, query.text.as_str())).collect();
        assert_eq!(queries, [(0, "question 1 de"), (0, "question 2 de"), (1, "question 1 fr")]);
        assert_eq!(of(&two.queries[0], &two), ["answer 1 de", "answer 1 fr"]);
        assert_eq!(of(&two.queries[1], &two), ["answer 2 fr"]);
        // The second question has no answer in English.
        let one = set().only(&["en".to_owned()]).unwrap();
        assert_eq!(one.queries.iter().map(|query| query.text.as_str()).collect::<Vec<_>>(), ["question 1 en"]);
        let all: Vec<String> = ["de", "en", "fr"].map(str::to_owned).to_vec();
        assert_eq!(set().only(&all).unwrap(), set(), "all languages are the whole set");
    }

    #[test]
    fn languages_that_leave_nothing_are_refused() {
        assert_eq!(set().only(&["sw".to_owned()]).unwrap_err(), "there is no \"sw\"; the data has de, en, fr");
        let mut without = set();
        without.queries.retain(|query| query.lang != 1);
        let error = without.only(&["en".to_owned()]).unwrap_err();
        assert_eq!(error, "no question is left that has an answer in en");
    }
}
