//! Choosing subsets of mteb's tasks by language.

use std::collections::BTreeSet;

use super::table::{TaskRow, language_groups, tasks};
use crate::error::listed;
use crate::{Error, Result};

/// The languages that were asked for.
///
/// A code is one of ISO 639-1 (`de`) or ISO 639-3 (`deu`), with a script (`deu-Latn`, as mteb writes it) or without. One of a
/// macrolanguage stands for all its languages: `ar` and `ara` for `arb`, `arz` and so on, `zh` for `cmn` and `yue`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageFilter {
    /// ISO 639-3 codes, with or without script.
    codes: BTreeSet<String>,
}

impl LanguageFilter {
    /// Reads codes that commas divide.
    ///
    /// # Errors
    /// If there is none, or no task has texts in a language.
    pub fn parse(list: &str) -> Result<Self> {
        let known: BTreeSet<String> = known_codes().collect();
        let (mut codes, mut unknown) = (BTreeSet::new(), Vec::new());
        for code in list.split(',').map(str::trim).filter(|code| !code.is_empty()) {
            let of_it: Vec<String> = meant(code).into_iter().filter(|code| known.contains(code)).collect();
            if of_it.is_empty() {
                unknown.push(format!("{code:?}"));
            }
            codes.extend(of_it);
        }
        if !unknown.is_empty() {
            return Err(Error::usage(format!(
                "no task of mteb's has texts in {}; write ISO 639-1 (de) or 639-3 (deu), or that with a script (deu-Latn)",
                listed(&unknown)
            )));
        }
        match codes.is_empty() {
            true => Err(Error::usage("no language is named; write codes with commas between them, such as de,en")),
            false => Ok(LanguageFilter { codes }),
        }
    }

    /// Whether all of these, such as `deu-Latn`, were asked for.
    pub fn selects(&self, languages: &[String]) -> bool {
        languages.iter().all(|code| self.codes.contains(code) || self.codes.contains(language_of(code)))
    }

    /// Whether a subset that is called after its languages, `de`, `deu_Latn` or `de-en`, is of those that were asked for.
    pub fn selects_named(&self, subset: &str) -> bool {
        let is_asked = |code: &str| {
            meant(code).iter().any(|code| self.codes.contains(code) || self.codes.contains(language_of(code)))
        };
        is_asked(subset) || subset.split('-').all(is_asked)
    }
}

/// The languages of all subsets, with and without script.
fn known_codes() -> impl Iterator<Item = String> {
    tasks().iter().flat_map(TaskRow::languages).flat_map(|code| [language_of(&code).to_owned(), code])
}

/// `deu` of `deu-Latn`.
fn language_of(code: &str) -> &str {
    code.split('-').next().unwrap_or(code)
}

/// The codes that `code` stands for, as mteb writes them: `cmn-Hans` and others for `ZH_hans`.
fn meant(code: &str) -> Vec<String> {
    let code = code.to_ascii_lowercase().replace('_', "-");
    let (language, script) = code.split_once('-').unwrap_or((&code, ""));
    let group = language_groups().get(language).map_or(language, String::as_str);
    let mut script = script.to_owned();
    if let Some(first) = script.get_mut(..1) {
        first.make_ascii_uppercase();
        script.insert(0, '-');
    }
    group.split(' ').map(|language| format!("{language}{script}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::mteb::table::task;

    fn selected(task_name: &str, list: &str) -> Vec<String> {
        let filter = LanguageFilter::parse(list).unwrap();
        task(task_name).unwrap().in_languages(&filter).map(|subset| subset.name.clone()).collect()
    }

    #[test]
    fn subsets_of_the_languages_that_were_asked_for_are_selected() {
        assert_eq!(selected("MLQARetrieval", "de,en"), ["deu-deu", "deu-eng", "eng-deu", "eng-eng"]);
        assert_eq!(selected("MLQARetrieval", " DEU , eng_latn"), ["deu-deu", "deu-eng", "eng-deu", "eng-eng"]);
        assert_eq!(selected("MLQARetrieval", "de"), ["deu-deu"]);
        assert_eq!(selected("XQuADRetrieval", "ar,el"), ["ar", "el"]);
        assert_eq!(selected("STS17", "es,en"), ["en-en", "es-en", "es-es"]);
        // All of CUREv1's documents are English.
        assert_eq!(selected("CUREv1", "fr"), [""; 0]);
        assert_eq!(selected("CUREv1", "fr,en"), ["en", "fr"]);
    }

    #[test]
    fn macrolanguages_stand_for_their_languages_and_scripts_for_themselves() {
        // XQuAD's Arabic is `arb`, MLQA's `ara`; the first is one of the languages of the second.
        assert_eq!(selected("XQuADRetrieval", "ara"), ["ar"]);
        assert_eq!(selected("XQuADRetrieval", "arb"), ["ar"]);
        assert_eq!(selected("MLQARetrieval", "arb"), [""; 0]);
        for code in ["zh", "zho", "zh-Hans", "zho-Hans", "ZHO_hans"] {
            assert_eq!(selected("MLQARetrieval", code), ["zho-zho"], "{code}");
        }
        assert_eq!(selected("MLQARetrieval", "zh-Hant"), [""; 0]);
        let chinese = ["zho_Hans-zho_Hans", "zho_Hans-zho_Hant", "zho_Hant-zho_Hans", "zho_Hant-zho_Hant"];
        let of_belebele = selected("BelebeleRetrieval", "zho");
        assert_eq!(of_belebele, selected("BelebeleRetrieval", "zh"));
        assert!(of_belebele.iter().all(|name| chinese.contains(&name.as_str())), "{of_belebele:?}");
        assert_eq!(selected("BelebeleRetrieval", "zho-Hant"), ["zho_Hant-zho_Hant"]);
    }

    #[test]
    fn languages_without_texts_are_refused() {
        for (list, named) in [("de,xx,qqq", "\"xx\", \"qqq\""), ("deu-Cyrl", "\"deu-Cyrl\""), ("é-é", "é-é")] {
            let message = LanguageFilter::parse(list).unwrap_err().to_string();
            assert!(message.contains(named) && message.contains("ISO 639-1"), "{message}");
        }
        assert!(LanguageFilter::parse(" , ").unwrap_err().to_string().contains("no language is named"));
    }
}
