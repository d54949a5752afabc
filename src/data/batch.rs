//! A step's texts, packed for the encoder: token ids end to end, without padding.

use super::catalog::{LangId, Role, TextSource};
use super::same_answer::{Passage, SameAnswer, same_answer};
use super::sampler::permutation::Permutation;
use super::sampler::{BatchKind, BatchRow, SampledBatch};
use crate::random::{below, hash};
use crate::{Error, Result};
use std::cmp::Reverse;

/// One batch in host memory.
///
/// Sequences are numbered: the `n_queries` queries, then the `n_passages` passages. Passage `i < n_queries` is the
/// positive of query `i`; after the positives come the negatives, row by row. All fields are in this order, except the
/// tokens: `places` says where each sequence's tokens are.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The step that trains on the batch.
    pub step: u64,
    /// Languages that all rows have in common.
    pub kind: BatchKind,
    /// The dataset of all rows, if a run has several and does not mix them.
    pub dataset: Option<usize>,
    /// Number of queries, `batch_size`.
    pub n_queries: usize,
    /// Number of positives (as many as queries) and negatives.
    pub n_passages: usize,
    /// Token ids of all sequences, end to end: `(n_tokens,)`.
    pub ids: Vec<i32>,
    /// Start in `ids` of the sequence at each place, and the end of the last one: `(n_seqs + 1,)`.
    pub cu_seqlens: Vec<i32>,
    /// Place of each sequence in the stream of tokens, where the longest comes first: `(n_seqs,)`.
    pub places: Vec<i32>,
    /// Label (class id) of each sequence, numbered from 0 by first appearance: `(n_seqs,)`. A passage with a query's
    /// label answers it, whichever row it is from (`data/same_answer.rs` says when it does).
    pub labels: Vec<i32>,
    /// Passages that answer a query although their labels differ, where labels cannot say it: for each query a row of
    /// bits, 32 a word, the lowest first, bit `p` for passage `p`. If passage `p` is a positive, its query is no negative
    /// either, and the bit is set in both rows: `(n_queries, n_passages / 32 rounded up)`, or empty if no bit is set.
    pub left_out: Vec<i32>,
    /// For each query the range (first, end) of passages that neither it nor its positive may take as negatives,
    /// although their labels differ: negatives of its row that a teacher rejects. Empty if it rejects none: `(2
    /// n_queries,)`.
    pub rejected: Vec<i32>,
    /// For each query the range (first, end) of its own negatives among the passages: `(2 n_queries,)`, or empty unless a
    /// teacher's scores are asked for.
    pub own_negatives: Vec<i32>,
    /// A teacher's score of each passage for the query that it belongs to; NaN if there is none: `(n_passages,)`, or empty
    /// unless they are asked for.
    pub teacher_scores: Vec<f32>,
    /// Language of each query: `(n_queries,)`.
    pub query_langs: Vec<LangId>,
    /// Language of each passage: `(n_passages,)`.
    pub passage_langs: Vec<LangId>,
}

/// Which negatives of its group a row uses, and what a teacher's scores are used for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NegativeRules {
    /// Most negatives per query (`None`: all).
    pub per_query: Option<usize>,
    /// Rejects negatives with a teacher's score above the positive's less this margin (`None`: scores are not used). A
    /// text without a score is not rejected, and a positive without one rejects none.
    pub teacher_margin: Option<f64>,
    /// Whether batches hold a teacher's scores, to learn from.
    pub with_scores: bool,
}

/// The order of sequences in the stream: longest first, so that chunks hold sequences of like lengths and the largest
/// chunk comes first; equally long ones by number.
fn longest_first(texts: &[&[u32]]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&seq| Reverse(texts[seq].len()));
    order
}

/// A text chosen for the batch.
struct Chosen {
    text: u64,
    lang: LangId,
}

/// Purpose of a row's random bits: different purposes must draw independently.
#[derive(Clone, Copy)]
enum Choice {
    Query,
    Positive,
    Negatives,
}

impl Batch {
    /// Looks up and packs the texts of a sampled batch.
    ///
    /// A row has negatives in the language of its positive, those that a teacher rejects last. Its `pick` decides which
    /// of several negatives, queries or positives in one language are used.
    ///
    /// # Errors
    /// If the batch has more tokens than 32-bit offsets can count, or `source` contradicts itself.
    ///
    /// # Panics
    /// If `source` lacks a text that its catalog promises.
    pub fn pack(step: u64, sampled: &SampledBatch, source: &dyn TextSource, rules: NegativeRules) -> Result<Self> {
        let rows = &sampled.rows;
        let queries: Vec<Chosen> = rows.iter().map(|row| choose_one(source, row, Role::Query, Choice::Query)).collect();
        let mut passages: Vec<Chosen> =
            rows.iter().map(|row| choose_one(source, row, Role::Positive, Choice::Positive)).collect();
        let (mut rejected, mut own_negatives) = (Vec::with_capacity(2 * rows.len()), Vec::new());
        for (i, row) in rows.iter().enumerate() {
            let negatives = choose_negatives(source, row, rules.per_query);
            let is_rejected = teacher(source, passages[i].text, rules.teacher_margin);
            let (worse, believed): (Vec<_>, Vec<_>) = negatives.into_iter().partition(|text| is_rejected(text.text));
            if rules.with_scores {
                let n = believed.len() + worse.len();
                own_negatives.extend([passages.len() as i32, (passages.len() + n) as i32]);
            }
            passages.extend(believed);
            rejected.push(passages.len() as i32);
            passages.extend(worse);
            rejected.push(passages.len() as i32);
        }

        let score = |passage: &Chosen| source.teacher_score(passage.text).unwrap_or(f32::NAN);
        let teacher_scores = passages.iter().filter(|_| rules.with_scores).map(score).collect();
        let groups: Vec<u64> = rows.iter().map(|row| row.group).collect();
        let of_group = |(number, chosen): (usize, &Chosen)| Passage {
            text: chosen.text,
            lang: chosen.lang,
            group: groups.get(number).copied().or_else(|| source.group_of_negative(chosen.text)),
        };
        let in_groups: Vec<Passage> = passages.iter().enumerate().map(of_group).collect();
        let SameAnswer { labels, left_out } = same_answer(source, &groups, &in_groups);
        if !left_out.is_empty() && !source.shares_texts() {
            // There is no room for the bits. A cache that hbt wrote knows better.
            return Err(Error::other("the token cache was changed by another program; remove it, and it is made anew"));
        }
        let seqs = || queries.iter().chain(&passages);
        let texts: Vec<&[u32]> = seqs().map(|seq| source.tokens(seq.text)).collect();
        let TokenStream { ids, cu_seqlens, places } = TokenStream::new(&texts)?;
        Ok(Batch {
            step,
            kind: sampled.kind,
            dataset: sampled.dataset,
            n_queries: queries.len(),
            n_passages: passages.len(),
            ids,
            cu_seqlens,
            places,
            labels,
            left_out,
            rejected,
            own_negatives,
            teacher_scores,
            query_langs: queries.iter().map(|seq| seq.lang).collect(),
            passage_langs: passages.iter().map(|seq| seq.lang).collect(),
        })
    }

    /// Number of queries and passages.
    pub fn n_seqs(&self) -> usize {
        self.n_queries + self.n_passages
    }

    /// Number of tokens of all sequences.
    pub fn n_tokens(&self) -> usize {
        self.ids.len()
    }

    /// Token ids of one sequence.
    pub fn seq(&self, seq: usize) -> &[i32] {
        let place = self.places[seq] as usize;
        &self.ids[self.cu_seqlens[place] as usize..self.cu_seqlens[place + 1] as usize]
    }
}

/// Sequences end to end; see the fields of [`Batch`].
struct TokenStream {
    ids: Vec<i32>,
    cu_seqlens: Vec<i32>,
    places: Vec<i32>,
}

impl TokenStream {
    fn new(texts: &[&[u32]]) -> Result<Self> {
        let n_tokens: usize = texts.iter().map(|text| text.len()).sum();
        if i32::try_from(n_tokens).is_err() {
            let message = format!("{n_tokens} tokens in one batch are more than 2^31; lower it");
            return Err(Error::config("batch_size", message));
        }
        let mut ids = Vec::with_capacity(n_tokens);
        let mut cu_seqlens = Vec::with_capacity(texts.len() + 1);
        let mut places = vec![0; texts.len()];
        cu_seqlens.push(0);
        for (place, seq) in (0..).zip(longest_first(texts)) {
            places[seq] = place;
            ids.extend(texts[seq].iter().map(|&id| id as i32));
            cu_seqlens.push(ids.len() as i32);
        }
        Ok(TokenStream { ids, cu_seqlens, places })
    }
}

/// Returns whether a teacher's score of a negative is too close to that of `positive`, or above it.
fn teacher(source: &dyn TextSource, positive: u64, margin: Option<f64>) -> impl Fn(u64) -> bool {
    let score = |text| source.teacher_score(text).map(f64::from);
    let limit = margin.and_then(|margin| Some(score(positive)? - margin));
    move |negative| limit.is_some_and(|limit| score(negative).is_some_and(|score| score > limit))
}

/// The row's query or positive.
fn choose_one(source: &dyn TextSource, row: &BatchRow, role: Role, choice: Choice) -> Chosen {
    let lang = if role == Role::Query { row.query_lang } else { row.passage_lang };
    let texts = source.texts(row.group, role, lang);
    assert!(!texts.is_empty(), "group {} has no {role:?} in language {lang}, but its class says so", row.group);
    let text = texts.start + below(hash(&[row.pick, choice as u64]), texts.end - texts.start);
    Chosen { text, lang }
}

/// The row's negatives: all in the order of the data, or as many as allowed, drawn without repeats.
fn choose_negatives(source: &dyn TextSource, row: &BatchRow, max_negatives: Option<usize>) -> Vec<Chosen> {
    let texts = source.texts(row.group, Role::Negative, row.passage_lang);
    let n = texts.end.saturating_sub(texts.start);
    let chosen = |text| Chosen { text, lang: row.passage_lang };
    match max_negatives {
        Some(max) if (max as u64) < n => {
            let order = Permutation::new(n, hash(&[row.pick, Choice::Negatives as u64]));
            (0..max as u64).map(|place| chosen(texts.start + order.item(place))).collect()
        }
        _ => texts.map(chosen).collect(),
    }
}
