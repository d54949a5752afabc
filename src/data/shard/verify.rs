//! Whether a cache file holds together. Its checksums tell that it is what somebody wrote; in a shared directory that may
//! have been another program. What is out of range or contradicts itself is built again, and nothing else has to ask.

use rayon::prelude::*;

use super::file::{GroupRecord, MappedFile, TextRecord};
use super::links::NONE;
use super::{Meta, MetaClass, TokenizeSpec};
use crate::data::catalog::{LangId, Role};
use crate::data::formats::language;

/// Whether all numbers are in range, and groups, classes and counts agree with the texts.
pub(super) fn is_sound(file: &MappedFile, meta: &Meta, spec: &TokenizeSpec) -> bool {
    let (texts, groups) = (file.texts(), file.groups());
    let Some(first_groups) = first_groups(&meta.classes) else { return false };
    let checks = Checks { file, meta, spec, n_groups: groups.len() as u64 - 1 };
    let is_whole = groups.first().is_some_and(|group| group.first_text == 0)
        && groups.last().is_some_and(|end| end.first_text == texts.len() as u64)
        && groups.is_sorted_by_key(|group| group.first_text)
        && first_groups.last() == Some(&checks.n_groups);
    is_whole
        && checks.are_named()
        && n_scores(texts) == meta.n_scores
        && (0..checks.n_groups as usize).into_par_iter().all(|number| {
            let class = first_groups.partition_point(|first| *first <= number as u64) - 1;
            checks.is_group(number, &meta.classes[class])
        })
}

/// The number of each class's first group, and of all groups.
fn first_groups(classes: &[MetaClass]) -> Option<Vec<u64>> {
    let mut first = vec![0u64];
    for (n_groups, ..) in classes {
        first.push(first.last()?.checked_add(*n_groups)?);
    }
    Some(first)
}

/// Numbers of positives and negatives with a score.
fn n_scores(texts: &[TextRecord]) -> [u64; 2] {
    [Role::Positive, Role::Negative].map(|role| {
        let scored = texts.par_iter().filter(|text| text.role == role as u16 && !text.score.is_nan());
        scored.count() as u64
    })
}

struct Checks<'a> {
    file: &'a MappedFile,
    meta: &'a Meta,
    spec: &'a TokenizeSpec,
    n_groups: u64,
}

impl Checks<'_> {
    /// Languages and the lists of the classes.
    fn are_named(&self) -> bool {
        let Meta { languages, classes, .. } = self.meta;
        let is_list = |langs: &[LangId]| {
            langs.is_sorted_by(|a, b| a < b) && langs.last().is_some_and(|last| usize::from(*last) < languages.len())
        };
        languages.iter().all(|lang| language(lang).as_ref() == Ok(lang))
            && languages.is_sorted_by(|a, b| a < b)
            && classes.iter().all(|(_, queries, passages)| is_list(queries) && is_list(passages))
    }

    fn is_group(&self, number: usize, (_, query_langs, passage_langs): &MetaClass) -> bool {
        let groups = self.file.groups();
        let of_group = groups[number].first_text as usize..groups[number + 1].first_text as usize;
        let texts = &self.file.texts()[of_group];
        let langs = |role: Role| {
            let mut langs: Vec<LangId> =
                texts.iter().filter(|text| text.role == role as u16).map(|text| text.lang).collect();
            langs.dedup();
            langs
        };
        texts.is_sorted_by_key(|text| (text.role, text.lang))
            && texts.iter().all(|text| self.is_text(number as u64, text))
            && langs(Role::Query) == *query_langs
            && langs(Role::Positive) == *passage_langs
            && self.is_id(&groups[number])
    }

    fn is_text(&self, group: u64, text: &TextRecord) -> bool {
        let words = self.file.words().len() as u64;
        let TokenizeSpec { query_max_len, passage_max_len, .. } = self.spec;
        let (max_len, is_link) = match text.role {
            role if role == Role::Query as u16 => {
                let is_shared = text.link != group;
                (query_max_len, text.link < self.n_groups && (self.meta.shares_texts || !is_shared))
            }
            role if role == Role::Positive as u16 => (passage_max_len, text.link == NONE),
            role if role == Role::Negative as u16 => (passage_max_len, text.link < self.n_groups || text.link == NONE),
            _ => return false,
        };
        let end = text.start.checked_add(u64::from(text.len));
        is_link
            && usize::from(text.lang) < self.meta.languages.len()
            && text.len > 0
            && text.len as usize <= *max_len
            && text.len <= text.full_len
            && end.is_some_and(|end| end <= words)
    }

    fn is_id(&self, group: &GroupRecord) -> bool {
        let bytes: &[u8] = bytemuck::cast_slice(self.file.words());
        let start = group.id_start.checked_mul(size_of::<u32>() as u64);
        let range = start.and_then(|start| Some((start as usize, start.checked_add(group.id_len)? as usize)));
        let id = range.and_then(|(start, end)| bytes.get(start..end));
        id.is_some_and(|id| std::str::from_utf8(id).is_ok())
    }
}
