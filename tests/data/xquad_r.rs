//! The real XQuAD-R, where it is at hand, against the counts of its README.

use std::env;
use std::path::{Path, PathBuf};

use crate::common::XQUAD_R_SENTENCES;
use hbt::data::formats::{DataSource, Notes, Split, squad};

/// The directory of XQuAD-R: under `$HBT_SHARED`, or `shared/` beside the repository.
pub fn xquad_r() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let shared = env::var_os("HBT_SHARED").map_or(beside, PathBuf::from);
    let dir = shared.join("xquad-r");
    if dir.is_dir() {
        return Some(dir);
    }
    eprintln!("skipped: no XQuAD-R at {}; set HBT_SHARED to the directory that holds xquad-r", dir.display());
    None
}

#[test]
fn counts() {
    let Some(dir) = xquad_r() else { return };
    let languages = squad::languages(&dir).unwrap();
    assert_eq!(languages.len(), XQUAD_R_SENTENCES.len());
    for ((lang, path), (expected_lang, n_sentences)) in languages.iter().zip(XQUAD_R_SENTENCES) {
        let articles = squad::read_language(path, &mut Notes::default()).unwrap();
        let paragraphs: Vec<_> = articles.iter().flat_map(|article| &article.paragraphs).collect();
        let questions: Vec<_> = paragraphs.iter().flat_map(|paragraph| &paragraph.questions).collect();
        assert_eq!(lang, expected_lang);
        assert_eq!(articles.len(), 48, "{lang}");
        assert_eq!(paragraphs.iter().map(|paragraph| paragraph.sentences.len()).sum::<usize>(), n_sentences, "{lang}");
        assert_eq!(questions.len(), 1190, "{lang}");
        assert!(questions.iter().all(|question| question.sentence.is_some()), "{lang}");
    }
}

#[test]
fn groups_are_parallel_and_split_by_article() {
    let Some(dir) = xquad_r() else { return };
    let groups = |split| DataSource { split: Split::into(split), ..DataSource::new(&dir) }.read_groups().unwrap().0;
    let (all, train, test) = (groups(Split::All), groups(Split::Train), groups(Split::Test));
    assert_eq!(all.len(), 1190);
    assert!(all.iter().all(|group| group.queries.len() == 11 && group.positives.len() == 11));
    assert_eq!(train.len() + test.len(), 1190);
    assert!(test.iter().all(|group| train.iter().all(|other| other.id != group.id)));
    // Read off the file: the first question, and the sentence of code points [0, 137).
    let first = &all[0];
    assert_eq!(first.id, "56beb4343aeaaa14008c925b");
    let english = first.queries.iter().position(|text| text.lang == "en").unwrap();
    assert_eq!(first.queries[english].text, "How many points did the Panthers defense surrender?");
    assert!(first.positives[english].text.starts_with("The Panthers defense gave up just 308 points, ranking sixth"));
}
